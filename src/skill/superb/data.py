"""From a task's corpora to its examples: manifests of real speech, or an official corpus."""

from collections.abc import Sequence

from skill.corpora.manifest import Utterance
from skill.errors import SkillError
from skill.superb.examples import Fold
from skill.superb.sample import SAMPLE
from skill.superb.tasks import PROTOCOL, Task

OFFICIAL = {corpus for task in PROTOCOL.values() for corpus in task.corpora}


def folds_of(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """The folds of `task`, one where there is no cross-validation.

    Raises:
        SkillError: a corpus of the task has no utterance, or a split would be empty.
    """
    present = {utterance.corpus for utterance in utterances}
    missing = [corpus for corpus in task.corpora if corpus not in present]
    if missing:
        raise SkillError(f"{task.name}: the manifests have no utterance of {', '.join(missing)}")
    folds = SAMPLE[task.name](task, [u for u in utterances if u.corpus in task.corpora])
    for fold in folds:
        for split in ("train", "dev", "test"):
            if not getattr(fold, split):
                raise SkillError(f"{task.name}: no usable {split} example in {task.corpora}")
    return folds
