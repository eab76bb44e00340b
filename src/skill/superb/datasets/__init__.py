"""From a task's corpora to its examples: manifests of real speech, or an official corpus."""

from collections.abc import Sequence
from dataclasses import replace

from skill.config.tasks import Task
from skill.data.manifest import Utterance
from skill.superb.datasets import constructed, official
from skill.superb.datasets.aligned import ALIGNED
from skill.superb.datasets.labelled import LABELLED
from skill.superb.datasets.official import OFFICIAL
from skill.superb.datasets.sample import SAMPLE
from skill.superb.examples import Fold, Search
from skill.utils.errors import SkillError


def folds_of(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """The folds of `task`, one where there is no cross-validation.

    Raises:
        SkillError: a corpus of the task has no utterance, or a split would be empty.
    """
    task_utterances, synthetic = _of_task(task, utterances)
    builder = OFFICIAL.get((task.name, task.corpora[0])) or (SAMPLE | LABELLED | ALIGNED)[task.name]
    folds = [replace(fold, synthetic=synthetic) for fold in builder(task, task_utterances)]
    for fold in folds:
        for split in ("dev", "test") if task.kind == "abx" else ("train", "dev", "test"):
            if not getattr(fold, split):
                raise SkillError(f"{task.name}: no usable {split} example in {task.corpora}")
    return folds


def search_of(task: Task, utterances: Sequence[Utterance]) -> Search:
    """Queries and documents of query by example.

    Raises:
        SkillError: a corpus of the task has no utterance, no query or no document.
    """
    task_utterances, synthetic = _of_task(task, utterances)
    build = official.search if task.corpora[0] == "quesst14" else constructed.searches
    search = replace(build(task, task_utterances), synthetic=synthetic)
    for name, part in (("document", search.documents), *search.queries.items()):
        if not part:
            raise SkillError(f"{task.name}: no usable {name} example in {task.corpora}")
    return search


def _of_task(task: Task, utterances: Sequence[Utterance]) -> tuple[list[Utterance], bool]:
    """The utterances of a task's corpora, and whether some are synthetic."""
    present = {utterance.corpus for utterance in utterances}
    missing = [corpus for corpus in task.corpora if corpus not in present]
    if missing:
        raise SkillError(f"{task.name}: the manifests have no utterance of {', '.join(missing)}")
    selected = [u for u in utterances if u.corpus in task.corpora]
    return selected, any(u.kind == "synthetic" for u in selected)
