"""Tasks whose labels stand in the manifest in the same way, whatever the corpus: IC, SF and ER.

They serve their official corpora, and synthetic speech in the sample scale.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from skill.config.tasks import Task
from skill.data.corpora.superb_files import required_files
from skill.data.corpora.superb_layouts import emotion_list, slot_names
from skill.data.manifest import Utterance
from skill.superb.datasets.common import class_number, example_of, split
from skill.superb.examples import Fold
from skill.superb.slots import slot_symbols
from skill.utils.errors import SkillError

EMOTIONS = ("neu", "hap", "ang", "sad")


def intents(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """IC: three labels; their classes in the order in which the training list names them."""
    rows = [(u, _labels(u)) for u in utterances]
    names = tuple(
        tuple(dict.fromkeys(labels[slot] for u, labels in rows if u.split == "train"))
        for slot in range(3)
    )
    examples = [
        (
            u.split,
            example_of(task, u, tuple(class_number(u, names[n], labels[n]) for n in range(3))),
        )
        for u, labels in rows
    ]
    return [split(task, examples, labels=names)]


def _labels(u: Utterance) -> list[str]:
    labels = u.text.split(";")
    if len(labels) != 3:
        raise SkillError(f"ic: {u.id}: {u.text!r} is no `action;object;location`")
    return labels


def emotions(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """ER: fold k tests session k; of the others, four fifths train and the rest is dev.

    As s3prl: the first of `torch.randperm` from seed 0 train. IEMOCAP's utterances are in the order
    of its lists, those of other corpora in the manifest's.
    """
    listed = required_files(task.name, task.corpora[0])
    rank = {key: n for n, key in enumerate(key for path in listed for key in emotion_list(path))}
    if listed and rank.keys() != {u.id for u in utterances}:
        (key, *_) = sorted(rank.keys() ^ {u.id for u in utterances})
        place = listed[0].parents[1]
        raise SkillError(f"er: {key} is in only one of the corpus and the lists of {place}")
    ordered = sorted(utterances, key=lambda u: rank.get(u.id, 0))
    examples = [example_of(task, u, (class_number(u, EMOTIONS, u.text),)) for u in ordered]
    folds = []
    for session in range(1, task.folds + 1):
        inside = [u.speaker[:5] == f"Ses0{session}" for u in ordered]
        test = [e for e, is_test in zip(examples, inside, strict=True) if is_test]
        rest = [e for e, is_test in zip(examples, inside, strict=True) if not is_test]
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(rest), generator=generator).tolist()
        size = int((1 - 0.2) * len(rest))
        parts = {
            "train": [rest[i] for i in order[:size]],
            "dev": [rest[i] for i in order[size:]],
            "test": test,
        }
        pairs = [(part, example) for part, members in parts.items() for example in members]
        folds.append(split(task, pairs, labels=(EMOTIONS,)))
    return folds


def slot_filling(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """SF: transcripts with slot marks; the names are all of Audio SNIPS's list.

    Of another corpus, those of the training part.
    """
    examples = [(u.split, example_of(task, u, slot_symbols(u.text))) for u in utterances]
    fold = split(task, examples)
    listed = required_files(task.name, task.corpora[0])
    if listed:
        marks = [f"{mark}-{name}" for name in slot_names(*listed) for mark in "BE"]
    else:
        marks = sorted({s for e in fold.train for s in e.target if s.startswith(("B-", "E-"))})
    return [replace(fold, labels=(tuple(marks),))]


LABELLED: dict[str, Callable[[Task, Sequence[Utterance]], list[Fold]]] = {
    "ic": intents,
    "sf": slot_filling,
    "er": emotions,
}
