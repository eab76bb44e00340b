"""Sample tasks whose items are put together from clips: trials, mixtures and searches.

All is real speech, and every choice follows from hashes of ids. ASV: pairs of clips of characters
that no head's training hears. SD: clips of two characters laid over each other, so that the turns
are known to the sample. QbE: phrases of one voice searched in rows of phrases of other voices.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np

from skill.config.tasks import Task
from skill.data import audio
from skill.data.manifest import Utterance
from skill.superb.examples import (
    Example,
    Fold,
    Search,
    Trial,
    Waveform,
    group_folds,
    hashed,
    limit_seconds,
    with_crops,
)
from skill.superb.metrics import Turn
from skill.utils.errors import SkillError

_RATE = 16000
_QUIET = 0.05  # of the loudest 25 ms: the edges of a clip below it are not speech
_GROUPS = 4  # speakers are dealt into so many groups: one is test, one dev, the others train
_CLIPS_PER_TRIAL_SPEAKER = 20
_TURNS = 4
_LONGEST_SHIFT = 1.0  # seconds of overlap or pause between turns
_PHRASES_PER_DOCUMENT = 3
_LOUDNESS = 0.05


def _by_speaker(
    utterances: Sequence[Utterance], task: Task, shortest: float = 0.5
) -> dict[str, list[Utterance]]:
    clips: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        if utterance.speaker and utterance.seconds >= shortest:
            clips[utterance.speaker].append(utterance)
    fewest = max(task.min_clips, 4)
    frequent = {s: part for s, part in sorted(clips.items()) if len(part) >= fewest}
    if len(frequent) < _GROUPS:
        raise SkillError(f"{task.name}: fewer than {_GROUPS} speakers have {fewest} clips")
    return frequent


def trials(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """ASV: as many pairs of different speakers as of the same one; unseen in training.

    Under `superb`, the trials that choose are those that test, and no speaker is held out for dev.
    """
    clips = _by_speaker(utterances, task, shortest=1.0)
    groups = group_folds(clips, _GROUPS)
    test, dev = sorted(groups[0]), sorted(groups[0 if task.protocol == "superb" else 1])
    train = [speaker for speaker in clips if speaker not in {*dev, *test}]
    number = {speaker: index for index, speaker in enumerate(train)}

    def example(u: Utterance) -> Example:
        return Example(
            u.id, u.samples, (number.get(u.speaker, -1),), u.speaker, partial(audio.read_segment, u)
        )

    def first_clips(speakers: Sequence[str], seconds: float) -> list[Example]:
        ranked = {s: sorted(clips[s], key=lambda u: hashed(u.id)) for s in speakers}
        clips_of = [example(u) for s in speakers for u in ranked[s][:_CLIPS_PER_TRIAL_SPEAKER]]
        return limit_seconds(clips_of, seconds)

    training = limit_seconds([example(u) for s in train for u in clips[s]], task.train_seconds)
    dev_clips, test_clips = first_clips(dev, task.dev_seconds), first_clips(test, task.test_seconds)
    return [
        Fold(
            with_crops(training, task.crop_seconds, task.crops),
            dev_clips,
            test_clips,
            labels=(tuple(train),),
            trials={"dev": _pairs(dev_clips), "test": _pairs(test_clips)},
        )
    ]


def _pairs(clips: Sequence[Example]) -> list[Trial]:
    pairs = sorted(combinations(clips, 2), key=lambda pair: hashed(f"{pair[0].id} {pair[1].id}"))
    trials_ = [Trial(a.cluster == b.cluster, a.id, b.id, a.cluster) for a, b in pairs]
    same = [trial for trial in trials_ if trial.same]
    return same + [trial for trial in trials_ if not trial.same][: len(same)]


@dataclass(frozen=True)
class Mixture:
    """Excerpts of clips, each from sample `first` to `last`, laid down from sample `start` on."""

    parts: tuple[tuple[Callable[[], Waveform], int, int, int], ...]
    samples: int

    def __call__(self) -> Waveform:
        mixed = np.zeros(self.samples, dtype=np.float32)
        for read, first, last, start in self.parts:
            clip = read()[first:last]
            loudness = float(np.sqrt(np.mean(clip**2)))
            mixed[start : start + len(clip)] += clip * (_LOUDNESS / max(loudness, 1e-6))
        return mixed


def speech_bounds(waveform: Waveform) -> tuple[int, int]:
    """First and last sample between which a clip is louder than its edges' silence.

    All of a clip that is silent throughout.
    """
    frame = _RATE // 40
    count = max(1, len(waveform) // frame)
    loudness = np.array([np.sqrt(np.mean(part**2)) for part in np.array_split(waveform, count)])
    loud = np.flatnonzero(loudness >= _QUIET * loudness.max())
    bounds = np.linspace(0, len(waveform), count + 1).astype(int)
    return int(bounds[loud[0]]), int(bounds[loud[-1] + 1])


def _mixture(name: str, voices: Sequence[Sequence[Utterance]]) -> Example:
    """Turns of two voices in alternation, each shifted by a hashed pause or overlap."""
    parts: list[tuple[Callable[[], Waveform], int, int, int]] = []
    turns: list[Turn] = []
    end = 0
    for turn in range(_TURNS):
        voice = voices[turn % 2]
        clip = voice[hashed(f"{name} {turn}") % len(voice)]
        first, last = speech_bounds(audio.read_segment(clip))
        shift = (hashed(f"{name} {turn} shift") % 2001 / 1000 - 1) * _LONGEST_SHIFT
        earliest = turns[-1].start if turns else 0.0
        start = round(max(end / _RATE + shift, earliest, 0.0) * _RATE)
        parts.append((partial(audio.read_segment, clip), first, last, start))
        turns.append(Turn(clip.speaker, start / _RATE, (start + last - first) / _RATE))
        end = max(end, start + last - first)
    cluster = "+".join(sorted({voice[0].speaker for voice in voices}))
    return Example(name, end, tuple(turns), cluster, Mixture(tuple(parts), end))


def mixtures(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """SD: pairs of characters; the clips of dev and test are in no training mixture."""
    clips = _by_speaker([u for u in utterances if u.seconds <= 6], task)
    parts: dict[str, list[Example]] = {}
    for split, seconds in (
        ("train", task.train_seconds), ("dev", task.dev_seconds), ("test", task.test_seconds)
    ):  # fmt: skip
        inside = {s: [u for u in part if u.split == split] for s, part in clips.items()}
        pairs = list(combinations(sorted(s for s, part in inside.items() if part), 2))
        recordings: list[Example] = []
        total, round_ = 0.0, 0
        while pairs and total < min(seconds, 36_000):
            pairs.sort(key=lambda pair: hashed(f"{split} {round_} {pair}"))
            for pair in pairs:
                recordings.append(
                    _mixture(f"{split}-{round_}-{'+'.join(pair)}", [inside[s] for s in pair])
                )
                total += recordings[-1].samples / _RATE
                if total >= min(seconds, 36_000):
                    break
            round_ += 1
        parts[split] = recordings
    return [Fold(parts["train"], parts["dev"], parts["test"])]


def searches(task: Task, utterances: Sequence[Utterance]) -> Search:
    """QbE: dev and test queries are two groups of voices; documents are rows of other voices."""
    usable = [u for u in utterances if u.text and u.language == "en"]
    clips = _by_speaker(usable, task, shortest=0.1)
    groups = group_folds(clips, _GROUPS)
    documents = []
    for speaker in sorted(groups[2] | groups[3]):
        row = sorted(clips[speaker], key=lambda u: hashed(u.id))
        for first in range(0, len(row) - _PHRASES_PER_DOCUMENT + 1, _PHRASES_PER_DOCUMENT):
            documents.append(_document(row[first : first + _PHRASES_PER_DOCUMENT]))
    documents = limit_seconds(documents, task.train_seconds)
    phrases = {phrase for document in documents for phrase in document.target}
    queries = {
        split: limit_seconds(
            [
                Example(u.id, u.samples, u.text, u.speaker, partial(audio.read_segment, u))
                for speaker in sorted(groups[group])
                for u in clips[speaker]
                if u.text in phrases
            ],
            seconds,
        )
        for split, group, seconds in (("dev", 1, task.dev_seconds), ("test", 0, task.test_seconds))
    }
    return Search(documents, queries)


def _document(row: Sequence[Utterance]) -> Example:
    starts = np.cumsum([0, *(u.samples for u in row)]).tolist()
    parts = tuple(
        (partial(audio.read_segment, u), 0, u.samples, start)
        for u, start in zip(row, starts, strict=False)
    )
    name = "+".join(u.id for u in row)
    return Example(name, starts[-1], tuple(u.text for u in row), row[0].speaker,
                   Mixture(parts, starts[-1]))  # fmt: skip
