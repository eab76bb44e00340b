"""Speaker diarization of two speakers: LSTM, permutation-invariant loss, turns from frames.

Legend: B recordings, T frames, S = 2 speakers.
"""

from collections.abc import Iterator, Sequence
from itertools import permutations, product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import medfilt
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from skill.superb.counts import Counts, Ratio
from skill.superb.downstream import Downstream
from skill.superb.examples import Example
from skill.superb.heads import WeightedSum
from skill.superb.metrics import Turn, diarization_counts

SPEAKERS = 2
MEDIANS, THRESHOLDS = (1, 11), (0.3, 0.4, 0.5, 0.6, 0.7)


class DiarizationHead(nn.Module):
    """One forward LSTM on the weighted sum, then one logit per speaker and frame.

    The LSTM starts anew every `chunk` frames (0: never), as the protocol cuts long recordings.
    """

    def __init__(self, states: int, width: int, units: int, layers: int, chunk: int = 0) -> None:
        super().__init__()
        self.featurizer = WeightedSum(states)
        self.recurrent = nn.LSTM(width, units, layers, batch_first=True)
        self.classifier = nn.Linear(units, SPEAKERS)
        self.chunk = chunk

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """[L, B, T, D] and lengths [B] to logits [B, T, S]."""
        hidden_states = []
        for part, left in chunks(self.featurizer(states), lengths, self.chunk):
            packed = pack_padded_sequence(
                part, left.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False
            )
            hidden, _ = pad_packed_sequence(
                self.recurrent(packed)[0], batch_first=True, total_length=part.shape[1]
            )
            hidden_states.append(hidden)
        return self.classifier(torch.cat(hidden_states, dim=1))


def chunks(x: Tensor, lengths: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """[B, T, …] in pieces of `size` frames (0: whole), each with what is valid of it [B]."""
    size = size or x.shape[1]
    for first in range(0, x.shape[1], size):
        part = x[:, first : first + size]
        yield part, (lengths - first).clamp(min=0, max=part.shape[1])


def permutation_loss(logits: Tensor, targets: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy under the better naming of the speakers, and that naming's targets.

    Mean over speakers, sum over frames, minimum over permutations; Σ over the batch / Σ lengths.
    logits, targets: [B, T, S]; lengths: [B].
    """
    lengths = lengths.to(logits.device)
    valid = torch.arange(logits.shape[1], device=logits.device) < lengths[:, None]
    orders = list(permutations(range(SPEAKERS)))
    named = torch.stack([targets[..., list(order)] for order in orders])  # [P, B, T, S]
    losses = F.binary_cross_entropy_with_logits(
        logits.expand_as(named), named, reduction="none"
    ).mean(dim=-1)
    best = (losses * valid).sum(dim=-1).min(dim=0)
    chosen = named[best.indices, torch.arange(len(logits), device=logits.device)]
    return best.values.sum() / lengths.sum(), chosen


def frame_targets(turns: Sequence[Turn], frames: int, hop: int) -> NDArray[np.float32]:
    """[T, S] activity of the speakers, in the order in which they are first named.

    A turn covers the frames from rint(start x 16000 / hop) to rint(end x 16000 / hop).
    """
    activity = np.zeros((frames, SPEAKERS), dtype=np.float32)
    names = list(dict.fromkeys(turn.speaker for turn in turns))
    for turn in turns:
        first, last = (int(np.rint(t * 16000 / hop)) for t in (turn.start, turn.end))
        activity[first:last, names.index(turn.speaker)] = 1
    return activity


def turns_of(
    probabilities: NDArray[np.float32], hop: int, median: int, threshold: float
) -> list[Turn]:
    """Speaker turns from probabilities [T, S]: threshold, median filter, runs of frames.

    Times are rounded to hundredths of a second, as in an RTTM file.
    """
    turns = []
    active = medfilt((probabilities > threshold).astype(float), (median, 1)) > 0.5
    for speaker in range(probabilities.shape[1]):
        edges = np.flatnonzero(np.diff(active[:, speaker].astype(int), prepend=0, append=0))
        for first, last in edges.reshape(-1, 2):
            start, length = round(first * hop / 16000, 2), round((last - first) * hop / 16000, 2)
            turns.append(Turn(speaker, start, start + length))
    return turns


def setting_name(median: int, threshold: float) -> str:
    """The DER's name under one of the ten ways to make turns."""
    return f"der_median{median}_threshold{threshold}"


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits to probabilities."""
    return torch.from_numpy(logits).sigmoid().numpy()


def match_lengths(states: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
    """States [L, B, T, D] with `lengths` [B] at the label's lengths [B]: [L, B, max, D].

    An upstream without padding gives a frame or two less than there are labels: its last frame is
    repeated. What it gives more is cut.
    """
    last = (lengths - 1).clamp(min=0)[:, None]
    frames = torch.minimum(torch.arange(int(labels.max())), last).to(states.device)
    return states[:, torch.arange(len(lengths))[:, None], frames]


def mean_accuracy(
    logits: NDArray[np.float32], targets: NDArray[np.float32], size: int
) -> tuple[float, float]:
    """Sum of the chunks' frame accuracies, and their number.

    Speakers are named as the loss names them (s3prl's `calc_diarization_error`); a chunk in which
    nobody speaks counts 0.
    """
    total, count = 0.0, 0
    for first in range(0, len(logits), size or len(logits)):
        part, truth = (
            torch.from_numpy(scores[None, first : first + (size or len(logits))])
            for scores in (logits, targets)
        )
        _, named = permutation_loss(part, truth, torch.tensor([part.shape[1]]))
        total += float(((part > 0) == named.bool()).float().mean()) if truth.any() else 0.0
        count += 1
    return total, float(count)


class Diarization(Downstream):
    """SD: who of two speakers is active in each frame. Targets are turns in seconds."""

    def build(self, states: int, width: int) -> nn.Module:
        task = self.task
        return DiarizationHead(
            states, width, task.recurrent, task.recurrent_layers, task.chunk_frames
        )

    def _label_frames(self, examples: Sequence[Example]) -> Tensor:
        """[B]: frames that labels have, whole hops of the recording."""
        return torch.tensor([max(example.samples // self.hop, 1) for example in examples])

    def loss(
        self, head: nn.Module, states: Tensor, lengths: Tensor, examples: Sequence[Example]
    ) -> Tensor:
        labels = self._label_frames(examples)
        logits = head(match_lengths(states, lengths, labels), labels)
        frames, size = logits.shape[1], self.task.chunk_frames
        rows = [frame_targets(example.target, frames, self.hop) for example in examples]
        targets = torch.from_numpy(np.stack(rows)).to(logits.device)
        losses = [
            permutation_loss(part, truth, left)[0] * left.sum()
            for (part, left), (truth, _) in zip(
                chunks(logits, labels, size), chunks(targets, labels, size), strict=True
            )
        ]
        return torch.stack(losses).sum() / labels.sum()

    def predictions(
        self, head: nn.Module, states: Tensor, lengths: Tensor, examples: Sequence[Example]
    ) -> list[Any]:
        """Logits [T, S] of each recording, one row for each frame of its labels."""
        labels = self._label_frames(examples)
        logits = head(match_lengths(states, lengths, labels), labels)
        return [row[: int(n)].numpy() for row, n in zip(logits.detach().cpu(), labels, strict=True)]

    def counts(self, examples: Sequence[Example], answers: Sequence[Any]) -> Counts:
        """Frame accuracy of each recording, and the DER under each of the ten settings."""
        table: dict[str, list[tuple[float, float]]] = {}
        for example, logits in zip(examples, answers, strict=True):
            targets = frame_targets(example.target, len(logits), self.hop)
            accuracy = mean_accuracy(logits, targets, self.task.chunk_frames)
            table.setdefault("frame_accuracy", []).append(accuracy)
            probabilities = sigmoid(logits)
            for median, threshold in product(MEDIANS, THRESHOLDS):
                turns = turns_of(probabilities, self.hop, median, threshold)
                name = setting_name(median, threshold)
                table.setdefault(name, []).append(diarization_counts(example.target, turns))
        return {
            name: Ratio(np.array([a for a, _ in rows]), np.array([b for _, b in rows]))
            for name, rows in table.items()
        }

    def choose_reported(self, dev: Counts, test: Counts) -> Counts:
        """`der` by the task's protocol; `der_superb` is the least of ten on test, as published."""
        on_dev, on_test = _best_setting(dev), _best_setting(test)
        chosen = on_test if self.task.protocol == "superb" else on_dev
        return {"der": test[chosen], "der_clean": test[on_dev], "der_superb": test[on_test]}


def _best_setting(counts: Counts) -> str:
    settings = [name for name in counts if name.startswith("der_")]
    return min(settings, key=lambda name: counts[name].value())
