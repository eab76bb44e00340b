"""Examples of the tasks that rest on forced alignment: phones, ABX and words.

The alignment comes with the project (`data/alignments.csv.gz`, `skill.data.alignments`). Splits are
the corpora's: by sentence, so a voice may be in all of them and a sentence is in one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

from skill.config.tasks import Task
from skill.data import alignments, audio
from skill.data.alignments import STEP, Alignments, Word
from skill.data.manifest import Utterance
from skill.superb.datasets.common import split
from skill.superb.examples import Example, Fold, hashed, limit_seconds
from skill.utils.errors import SkillError
from skill.utils.files import checkout_path

_SHORTEST_WORD = 3200  # samples: 0.2 s, a function word cut out of a sentence says little
_FEWEST_VOICES = 3  # that say a word


@dataclass(frozen=True)
class Aligned:
    """The target of an aligned example: its words with their phones."""

    words: tuple[Word, ...]


@cache
def _table() -> Alignments:
    return alignments.read(checkout_path("data/alignments.csv.gz"))


def _usable(task: Task, utterances: Sequence[Utterance]) -> tuple[list[Utterance], dict[str, int]]:
    """Utterances with an alignment that is as long as they are, and how many are left out."""
    table = _table()
    left_out: Counter[str] = Counter()
    usable = []
    for utterance in utterances:
        words = table.get(utterance.id)
        if words is None:
            left_out["no alignment"] += 1
            continue
        frames = sum(phone.frames for word in words for phone in word.phones)
        if abs(frames * STEP - utterance.samples) > 0.1 * 16000:
            raise SkillError(
                f"{task.name}: the alignment of {utterance.id} has {frames / 100:.2f} s, its audio "
                f"{utterance.seconds:.2f} s: they are not of the same recording"
            )
        usable.append(utterance)
    return usable, dict(left_out)


def phones(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """Whole utterances, cut to the task's seconds; the target of each is its alignment."""
    usable, left_out = _usable(task, utterances)
    return [split(task, [(u.split, _sentence(u)) for u in usable], left_out=left_out)]


def triphones(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """As `phones`, but the layer is chosen on the training split, and dev and test are judged.

    Nothing is fitted to labels, and triphones that one voice says twice are rare: of dev and test
    together there are three times as many comparisons within speakers as of test alone.
    """
    usable, left_out = _usable(task, utterances)
    heard = limit_seconds([_sentence(u) for u in usable if u.split == "train"], task.dev_seconds)
    unheard = limit_seconds([_sentence(u) for u in usable if u.split != "train"], task.test_seconds)
    return [Fold([], heard, unheard, left_out=left_out)]


def _sentence(u: Utterance) -> Example:
    read = partial(audio.read_segment, u)
    return Example(u.id, u.samples, Aligned(_table()[u.id]), u.speaker or u.id, read)


def words(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """Words cut from sentences: those that `min_clips` clips in three voices or more say.

    At most `max_clips` clips of a word, chosen by hash.
    """
    usable, left_out = _usable(task, utterances)
    clips: dict[str, list[Utterance]] = {}
    for utterance in usable:
        at = utterance.start
        for number, word in enumerate(_table()[utterance.id]):
            samples = STEP * sum(phone.frames for phone in word.phones)
            spoken = word.text.isalpha() and samples >= _SHORTEST_WORD
            if spoken and at + samples <= utterance.start + utterance.samples:
                name = f"{utterance.id}#{number}"
                clip = replace(utterance, id=name, start=at, samples=samples, text=word.text)
                clips.setdefault(word.text, []).append(clip)
            at += samples
    fewest = max(task.min_clips, 3)
    names = tuple(
        sorted(
            word
            for word, said in clips.items()
            if len(said) >= fewest
            and len({u.speaker for u in said}) >= _FEWEST_VOICES
            and {u.split for u in said} == {"train", "dev", "test"}
        )
    )
    if len(names) < 2:
        raise SkillError(
            f"{task.name}: {len(names)} words are said {fewest} times by {_FEWEST_VOICES} voices, "
            "and in every split"
        )
    parts: dict[str, list[Example]] = {"train": [], "dev": [], "test": []}
    for number, name in enumerate(names):
        for u in sorted(clips[name], key=lambda u: hashed(u.id))[: task.max_clips]:
            example = Example(
                u.id, u.samples, (number,), u.speaker or u.id, partial(audio.read_segment, u)
            )
            parts[u.split].append(example)
    left_out["word of few clips or voices"] = sum(map(len, clips.values())) - sum(
        len(clips[name]) for name in names
    )
    return [Fold(parts["train"], parts["dev"], parts["test"], labels=(names,), left_out=left_out)]


ALIGNED = {"phones": phones, "abx": triphones, "keywords": words}
