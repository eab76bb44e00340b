"""From a task's corpora to its examples: manifests of real speech, or an official corpus."""

from collections.abc import Sequence
from dataclasses import replace

from skill.config.tasks import Task
from skill.data.manifest import Utterance
from skill.superb.datasets.aligned import ALIGNED
from skill.superb.datasets.official import LABELLED
from skill.superb.datasets.official import OFFICIAL as BUILDERS
from skill.superb.datasets.sample import SAMPLE
from skill.superb.examples import Fold
from skill.utils.errors import SkillError


def folds_of(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """The folds of `task`, one where there is no cross-validation.

    Raises:
        SkillError: a corpus of the task has no utterance, or a split would be empty.
    """
    present = {utterance.corpus for utterance in utterances}
    missing = [corpus for corpus in task.corpora if corpus not in present]
    if missing:
        raise SkillError(f"{task.name}: the manifests have no utterance of {', '.join(missing)}")
    used = [u for u in utterances if u.corpus in task.corpora]
    builder = BUILDERS.get((task.name, task.corpora[0])) or (SAMPLE | LABELLED | ALIGNED)[task.name]
    synthetic = any(u.kind == "synthetic" for u in used)
    folds = [replace(fold, synthetic=synthetic) for fold in builder(task, used)]
    for fold in folds:
        for split in ("train", "dev", "test"):
            if not getattr(fold, split):
                raise SkillError(f"{task.name}: no usable {split} example in {task.corpora}")
    return folds
