"""Settings of tasks that are refused."""

import pytest

from skill.config.tasks import make_task
from skill.utils.errors import SkillError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stepz": 3}, "superb.tasks.pr.stepz"),
        ({"steps": "many"}, "superb.tasks.pr.steps"),
        ({"batch": 0}, "superb.tasks.pr.batch"),
        ({"kind": "labels"}, "superb.tasks.pr.kind"),
        ({"steps": 10}, "allow no training"),
        ({"learning_rates": []}, "allow no training"),
        ({"learning_rates": [1e-2, -1.0]}, "superb.tasks.pr.learning_rates.1"),
        ({"steps": "3000"}, "superb.tasks.pr.steps"),
        ({"spec_augment": 1}, "superb.tasks.pr.spec_augment"),
        ({"corpora": []}, "superb.tasks.pr.corpora"),
        ({"crop_seconds": 8.0}, "superb.tasks.pr: pr hears whole utterances"),
        ({"folds": 2}, "superb.tasks.pr.folds: 2, but pr has 1"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(SkillError, match=message):
        make_task("pr", settings)


@pytest.mark.parametrize(("task", "folds"), [("sid", 3), ("ks", 2), ("er", 6)])
def test_a_task_has_its_own_range_of_folds(task, folds):
    with pytest.raises(SkillError, match=f"{task}.folds: {folds}, but {task} has . to"):
        make_task(task, {"folds": folds})
