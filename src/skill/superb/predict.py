"""The verb `predict`: a trained head on one's own audio files.

Other rates are resampled and channels averaged, and a head of the sample scale hears no more than
the band of the corpora that it was trained on; a file that is no audio, too short or silent is
refused in words. Long files are cut at their quietest places: transcripts of the pieces are joined,
classes decided on all of them. Diarization names two speakers within a piece only, so it takes no
file of several pieces. ASV compares the first file with each other one.
"""

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from reprlib import repr as shown
from typing import Any

import numpy as np
import torch
from torch import nn

from skill.config.tasks import PROTOCOL, Task
from skill.config.types import parse
from skill.data.audio import read_recording, require_sound
from skill.data.corpora.clips import band_limit, split_at_pauses, to_pcm
from skill.data.manifest import RATE
from skill.encoder.formats.weights import floats
from skill.superb import diarization, slots, vocabulary
from skill.superb.datasets.common import EFFECTS
from skill.superb.datasets.official import OFFICIAL
from skill.superb.downstream import Downstream
from skill.superb.evaluate import DOWNSTREAM
from skill.superb.examples import Example, Fold, Waveform
from skill.superb.feature_cache import FeatureCache
from skill.superb.upstream import Upstream, load_upstream
from skill.utils.errors import SkillError
from skill.utils.files import read_tensors

LONGEST_PIECE = 20.0  # seconds
_SHORTEST = RATE // 10


def read_audio(path: Path) -> Waveform:
    """A file's samples [S] at 16 kHz, channels averaged.

    Raises:
        SkillError: as `skill.data.audio.read_recording`; too short, or silent.
    """
    samples = read_recording(path)
    if len(samples) < _SHORTEST:
        raise SkillError(f"{path}: {len(samples) / RATE:.3f} s of audio are too short (0.1 s)")
    return require_sound(samples, path)


def pieces(samples: Waveform) -> list[Waveform]:
    """Cut where it is quietest in the second half of every `LONGEST_PIECE` seconds."""
    parts = split_at_pauses(samples, RATE, LONGEST_PIECE, LONGEST_PIECE / 2)
    return [part for part in parts if len(part) >= _SHORTEST] or parts


def _labels(value: Any, head: Path) -> tuple[tuple[str, ...], ...]:
    """The names of the classes, of one or several kinds.

    Raises:
        SkillError: `value` is none, or a name is no text.
    """
    if not isinstance(value, list) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in value
    ):
        raise SkillError(f"{head}: no head of a task: labels are no lists of names")
    return tuple(map(tuple, value))


class Predictor:
    """A trained head with its upstream."""

    def __init__(self, head: Path, encoder: Path | None) -> None:
        """Raises SkillError: a file is damaged, or the head is not of this upstream's shape."""
        tensors, header = read_tensors(head)
        self.task = parse(Task, header.get("task"), f"{head}: task")
        if self.task.kind == "search":
            raise SkillError("qbe has no head: it aligns queries with documents")
        self.labels = _labels(header.get("labels"), head)
        self.upstream: Upstream = load_upstream(encoder, self.task.precision, self.task.fbank_cmvn)
        weights = {
            n.removeprefix("fold0."): t for n, t in tensors.items() if n.startswith("fold0.")
        }
        self.downstream = self._downstream(head)
        with torch.device("meta"):  # no memory is taken for a head that the file does not hold
            expected = self._build().state_dict()
        wrong = [
            name
            for name in sorted(expected.keys() | weights.keys())
            if name not in expected
            or name not in weights
            or expected[name].shape != weights[name].shape
        ]
        if wrong:
            raise SkillError(
                f"{head}: not a head for this upstream: {shown(wrong)} missing, or of other shapes"
            )
        self.head = self._build()
        self.head.load_state_dict(floats(weights, head))
        self.head.to(self.upstream.device).eval()
        self.features = FeatureCache(
            self.upstream, self.downstream.pooled, 0, self.task.batch_seconds
        )

    def _downstream(self, head: Path) -> Downstream:
        fold = Fold([], [], [], labels=self.labels)
        kind = DOWNSTREAM.get(self.task.kind)
        try:
            if kind is None:
                raise SkillError(f"{head}: a head of {self.task.kind}, which predicts nothing")
            return kind(self.task, fold, self.upstream.hop)
        except IndexError:
            raise SkillError(f"{head}: no head of a task: its labels are missing") from None

    def _build(self) -> nn.Module:
        return self.downstream.build(self.upstream.states, self.upstream.width)

    @torch.no_grad()
    def answers(self, parts: Sequence[Waveform]) -> list[Any]:
        """The head's answer to each piece."""
        answers = []
        for part in parts:
            example = Example("audio", len(part), None, "", partial(np.asarray, part))
            states, lengths = self.features.batch([example])
            answers += self.downstream.predictions(self.head, states, lengths, [example])
        return answers

    @torch.no_grad()
    def classes(self, parts: Sequence[Waveform]) -> list[str]:
        """The class of each kind of label, decided on the time mean over all pieces."""
        total, frames = None, 0
        for part in parts:
            example = Example("audio", len(part), None, "", partial(np.asarray, part))
            states, _ = self.features.batch([example])
            count = self.upstream.frames(len(part))
            total = states * count if total is None else total + states * count
            frames += count
        assert total is not None
        mean = total / frames
        labels = self.downstream.predictions(self.head, mean, torch.ones(1), [])[0]
        return [names[index] for names, index in zip(self.labels, labels, strict=True)]

    def predict(self, path: Path) -> dict[str, Any]:
        """What the task says of one file."""
        samples = read_audio(path)
        corpus = (self.task.name, self.task.corpora[0])
        if corpus not in OFFICIAL:  # the head has only heard corpora that were converted
            samples = to_pcm(band_limit(samples, RATE)).astype(np.float32)
            samples /= 32768
        effect = EFFECTS.get(corpus)
        parts = pieces(samples if effect is None else effect(samples))
        seconds = sum(len(part) for part in parts) / RATE
        entry: dict[str, Any] = {"file": str(path), "seconds": round(seconds, 3)}
        if self.task.kind == "labels":
            return {**entry, self.task.name: self.classes(parts)}
        if self.task.kind == "diarization":
            if len(parts) > 1:
                raise SkillError(f"{path}: {seconds:.0f} s are too long for sd ({LONGEST_PIECE} s)")
            probabilities = diarization.sigmoid(self.answers(parts)[0])
            turns = diarization.turns_of(probabilities, self.upstream.hop, 11, 0.5)
            named = [{"speaker": t.speaker, "start": t.start, "end": t.end} for t in turns]
            return {**entry, "turns": sorted(named, key=lambda turn: turn["start"])}
        if self.task.kind == "verification":
            return {**entry, "embedding": np.mean(self.answers(parts), axis=0).tolist()}
        symbols = self.answers(parts)
        if self.task.vocabulary == "phones":
            return {**entry, "phones": " ".join(" ".join(piece) for piece in symbols)}
        if self.task.vocabulary == "slots":
            return {**entry, "slots": " ".join(slots.slot_text(piece) for piece in symbols)}
        words = [word for piece in symbols for word in vocabulary.words_of(piece)]
        return {**entry, "transcript": " ".join(words)}


def _similarities(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """ASV: the cosine of each file's embedding with the first one's."""
    vectors = [np.array(entry.pop("embedding")) for entry in entries]
    unit = [vector / max(float(np.linalg.norm(vector)), 1e-12) for vector in vectors]
    return [{**e, "similarity": float(u @ unit[0])} for e, u in zip(entries, unit, strict=True)]


def run(
    task: str, files: Sequence[Path], head: Path, encoder: Path | None, as_json: bool = False
) -> None:
    """Print what `head` (of `task`, on `encoder`; None: FBANK) says of each file.

    Raises:
        SkillError: the task has another head, or a file is no good; the message names it.
    """
    if task not in PROTOCOL:
        raise SkillError(f"{task}: unknown task; there are {', '.join(PROTOCOL)}")
    predictor = Predictor(head, encoder)
    if predictor.task.name != task:
        raise SkillError(f"{head}: is a head of {predictor.task.name}, not of {task}")
    entries = [predictor.predict(Path(path)) for path in files]
    if predictor.task.kind == "verification":
        entries = _similarities(entries)
    if as_json:
        json.dump(entries, sys.stdout, indent=2, ensure_ascii=False)
        print()
        return
    for entry in entries:
        rest = {key: value for key, value in entry.items() if key not in ("file", "seconds")}
        for value in rest.values():
            shown = " ".join(value) if value and isinstance(value, list) and isinstance(
                value[0], str) else value  # fmt: skip
            print(f"{entry['file']}\t{shown}")
