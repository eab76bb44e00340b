"""Batches of at most so many seconds, in an order that is a pure function of seed and step.

As in DPHuBERT (papers.md 2.6): utterances are put in 1,000 buckets of equal width by length and
laid end to end, from the shortest to the longest; batches are filled across the borders of
buckets. Each epoch shuffles inside every bucket and shuffles the order of the batches. Filling
counts every utterance as the longest of its bucket, so the cuts are the same in each epoch, a batch
never exceeds its seconds, and the batch of any step is known without the steps before it: a run
resumes at step n by asking for step n.

Legend: B utterances, S samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skill.data import audio
from skill.data.manifest import RATE, Utterance
from skill.utils.errors import SkillError

_BUCKETS = 1000
_CROPS = 1  # tells the draws of crops from those of orders

Read = Callable[[Utterance, int, int | None], NDArray[np.float32]]


@dataclass(frozen=True)
class BatchPlan:
    """Utterances [B] that go through a model together, before they are read.

    From utterance b, `samples` samples from `starts[b]` on are taken; all of it where None.
    """

    utterances: tuple[Utterance, ...]
    starts: tuple[int, ...]
    samples: int | None

    def lengths(self) -> list[int]:
        """Samples taken of each utterance [B]."""
        return [self.samples or utterance.samples for utterance in self.utterances]


@dataclass(frozen=True)
class Batch:
    """A micro-batch that was read: waveforms [B, S] padded with zeros, lengths [B] in samples.

    `targets` is whatever a model has to predict, where that is made beside it.
    """

    plan: BatchPlan
    waveforms: Tensor
    lengths: Tensor
    targets: Any = None

    @property
    def ids(self) -> list[str]:
        """The utterances' names."""
        return [utterance.id for utterance in self.plan.utterances]

    @property
    def audio(self) -> int:
        """Samples of audio, the weight of this micro-batch's gradient."""
        return int(self.lengths.sum())

    def to(self, device: str) -> "Batch":
        """The same with its waveforms on a device."""
        return replace(self, waveforms=self.waveforms.to(device))


class Batches:
    """The batches of a training or an evaluation, by step.

    Args:
        utterances: what to batch.
        seconds: at most this much audio in a batch (before cropping).
        seed: of the order and the crops.
        crop: "shortest" takes of each utterance a random stretch as long as the shortest of the
            micro-batch, at most `micro_seconds`, so nothing is padded; None takes all.
        fixed_order: every epoch is as the first, as in DPHuBERT's code; only crops differ.
        micro_seconds: a batch is split into micro-batches of at most this much audio.

    Raises:
        SkillError: no utterances, or one (without cropping) that is longer than a batch.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        seconds: float,
        seed: int,
        crop: Literal["shortest"] | None = "shortest",
        fixed_order: bool = False,
        micro_seconds: float | None = None,
    ) -> None:
        if not utterances:
            raise SkillError("no utterances to make batches of")
        self.seed, self.crop, self.fixed_order = seed, crop, fixed_order
        self.limit = round(seconds * RATE)
        self.micro_limit = min(self.limit, round((micro_seconds or seconds) * RATE))
        lengths = np.array([utterance.samples for utterance in utterances], dtype=np.int64)
        if crop is None and lengths.max() > self.micro_limit:
            name = utterances[int(lengths.argmax())].id
            raise SkillError(
                f"utterance {name} has {lengths.max() / RATE:.1f} s, more than the "
                f"{self.micro_limit / RATE:.1f} s of a batch"
            )
        lengths = np.minimum(lengths, self.micro_limit)
        width = max((int(lengths.max()) - int(lengths.min())) / _BUCKETS, 1.0)
        bucket = np.minimum((lengths - lengths.min()) // width, _BUCKETS - 1).astype(np.int64)
        order = np.argsort(bucket, kind="stable")
        self.utterances = [utterances[index] for index in order.tolist()]
        self._bucket = bucket[order]
        tops = np.zeros(_BUCKETS, dtype=np.int64)
        np.maximum.at(tops, self._bucket, lengths[order])
        self._longest: list[int] = tops[self._bucket].tolist()
        self._cuts = _filled(self._longest, self.limit)
        self._epoch: tuple[int, NDArray[np.int64], NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._cuts) - 1

    def at(self, step: int) -> list[BatchPlan]:
        """The micro-batches of step `step` (from 0): a pure function of seed and step."""
        epoch, index = divmod(step, len(self))
        places, batches = self._orders(epoch)
        first, last = self._cuts[batches[index]], self._cuts[batches[index] + 1]
        cuts = _filled(self._longest[first:last], self.micro_limit)
        draw = np.random.default_rng([self.seed, _CROPS, step])
        return [
            self._micro([self.utterances[places[i]] for i in range(first + a, first + b)], draw)
            for a, b in pairwise(cuts)
        ]

    def _orders(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which utterance is in each place, and which batch at each step, in `epoch`."""
        if self.fixed_order:
            epoch = 0
        if self._epoch is None or self._epoch[0] != epoch:
            draw = np.random.default_rng([self.seed, 0, epoch])
            places = np.lexsort((draw.random(len(self.utterances)), self._bucket))
            self._epoch = (epoch, places, draw.permutation(len(self)))
        return self._epoch[1:]

    def _micro(self, utterances: list[Utterance], draw: np.random.Generator) -> BatchPlan:
        samples = None
        starts = [0] * len(utterances)
        if self.crop == "shortest":
            samples = min(self.micro_limit, *(utterance.samples for utterance in utterances))
            spare = np.array([utterance.samples - samples for utterance in utterances])
            starts = draw.integers(0, spare + 1).tolist()
        return BatchPlan(tuple(utterances), tuple(starts), samples)


def _filled(lengths: Sequence[int], limit: int) -> list[int]:
    """Where to cut a row of `lengths` so that no part sums to more than `limit`."""
    cuts, total = [0], 0
    for place, length in enumerate(lengths):
        if total and total + length > limit:
            cuts.append(place)
            total = 0
        total += length
    return [*cuts, len(lengths)]


def collate(plan: BatchPlan, read: Read = audio.read_segment) -> Batch:
    """Read a micro-batch: waveforms [B, S] float32 and lengths [B] int64."""
    lengths = plan.lengths()
    waveforms = torch.zeros(len(lengths), max(lengths))
    for row, utterance, start, length in zip(
        waveforms, plan.utterances, plan.starts, lengths, strict=True
    ):
        row[:length] = torch.from_numpy(read(utterance, start, length))
    return Batch(plan, waveforms, torch.tensor(lengths))
