"""Examples of the sample scale's tasks, from the manifests of corpora with real speech.

PR and ASR: transcripts. SID: characters of Amazon Queen (a character is a voice, an actor may have
several). KS: Hedgewars phrases; in each fold the test voices are heard in no other split.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from skill.config.tasks import Task
from skill.data import audio
from skill.data.manifest import Utterance
from skill.superb import vocabulary
from skill.superb.datasets import constructed
from skill.superb.examples import Example, Fold, group_folds, hashed, limit_seconds, with_crops
from skill.utils.errors import SkillError

_SHORTEST = 1600  # samples: a tenth of a second


def _example(utterance: Utterance, target: object) -> Example:
    return Example(
        utterance.id,
        utterance.samples,
        target,
        utterance.speaker or utterance.id,
        partial(audio.read_segment, utterance),
    )


def split(task: Task, examples: Sequence[tuple[str, Example]], **kept: object) -> Fold:
    """A fold from (split, example) pairs, each split cut to the task's seconds."""
    parts: dict[str, list[Example]] = {"train": [], "dev": [], "test": []}
    for split, example in examples:
        parts[split].append(example)
    train = limit_seconds(parts["train"], task.train_seconds)
    dev, test = (
        limit_seconds(parts["dev"], task.dev_seconds),
        limit_seconds(parts["test"], task.test_seconds),
    )
    return Fold(train, dev, test, **kept)  # type: ignore[arg-type]


def transcripts(
    task: Task, utterances: Sequence[Utterance], lexicon: vocabulary.Lexicon | None = None
) -> list[Fold]:
    """PR and ASR on English utterances with a transcript that can be spelled or pronounced.

    `lexicon`: CMU's dictionary where none is given.
    """
    if task.vocabulary == "phones" and lexicon is None:
        lexicon = vocabulary.cmu_lexicon()
    left_out: Counter[str] = Counter()
    letters = set(vocabulary.LETTERS)
    examples = []
    for utterance in utterances:
        if not utterance.text or utterance.language != "en" or utterance.samples < _SHORTEST:
            continue
        if task.vocabulary == "phones":
            target = vocabulary.phones_of(utterance.text.upper(), lexicon or {})
            reason = "a word is not in the dictionary"
        else:
            target = vocabulary.letters_of(utterance.text)
            target = target if letters.issuperset(target) else None
            reason = "a character is not in the alphabet"
        if target is None:
            left_out[reason] += 1
            continue
        examples.append((utterance.split, _example(utterance, target)))
    return [split(task, examples, left_out=dict(left_out))]


def speakers(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """SID among the speakers with `min_clips` clips or more, and with some in each split.

    In a second fold dev and test change places: as many test clips again, of which pretraining and
    distillation have heard as little.
    """
    usable = [u for u in utterances if u.speaker and u.samples >= _SHORTEST]
    clips = Counter(u.speaker for u in usable)
    fewest = max(task.min_clips, 3)
    complete = [
        {u.speaker for u in usable if u.split == split} for split in ("train", "dev", "test")
    ]
    names = tuple(sorted(s for s in set.intersection(*complete) if clips[s] >= fewest))
    if len(names) < 2:
        raise SkillError(
            f"{task.name}: fewer than two speakers have {fewest} clips, and some in each split"
        )
    number = {name: index for index, name in enumerate(names)}
    kept: list[Utterance] = []
    for name in names:
        own = sorted((u for u in usable if u.speaker == name), key=lambda u: hashed(u.id))
        kept += own[: task.max_clips]
    known = sum(clips[name] for name in names)
    left_out = {
        "speaker with few clips": len(usable) - known,
        "more clips than a speaker may have": known - len(kept),
    }
    examples = [(u.split, _example(u, (number[u.speaker],))) for u in kept]
    fold = split(task, examples, labels=(names,), left_out=left_out)
    folds = [fold, replace(fold, dev=fold.test, test=fold.dev)][: task.folds]
    return [
        replace(fold, train=with_crops(fold.train, task.crop_seconds, task.crops)) for fold in folds
    ]


def phrases(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """KS among the phrases that `min_clips` voices or more say; folds of unseen voices."""
    usable = [
        u
        for u in utterances
        if u.speaker and u.text and u.language == "en" and u.samples >= _SHORTEST
    ]
    voices = Counter(phrase for phrase, _ in {(u.text, u.speaker) for u in usable})
    fewest = max(task.min_clips, 3)
    names = tuple(sorted(p for p, count in voices.items() if count >= fewest))
    groups = group_folds((u.speaker for u in usable), task.folds)
    if len(names) < 2 or not all(groups):
        raise SkillError(
            f"{task.name}: {len(names)} phrases in {len({u.speaker for u in usable})} voices, said "
            f"by {fewest} voices or more, do not make "
            f"{task.folds} folds of unseen voices"
        )
    number = {name: index for index, name in enumerate(names)}
    left_out = {"phrase of few voices": sum(u.text not in number for u in usable)}
    folds = []
    for fold in range(task.folds):
        test, dev = groups[fold], groups[(fold + 1) % task.folds]
        examples = [
            ("test" if u.speaker in test else "dev" if u.speaker in dev else "train",
             _example(u, (number[u.text],)))
            for u in usable if u.text in number
        ]  # fmt: skip
        folds.append(split(task, examples, labels=(names,), left_out=left_out))
    return folds


SAMPLE: dict[str, Callable[[Task, Sequence[Utterance]], list[Fold]]] = {
    "pr": transcripts,
    "asr": transcripts,
    "sid": speakers,
    "ks": phrases,
    "asv": constructed.trials,
    "sd": constructed.mixtures,
}
