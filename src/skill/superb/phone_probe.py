"""What a linear classifier sees of phones in single frames of a representation.

The quantity is per cent of frames right, on clips that the classifier was not fitted on. It has no
sequence model, no learning rate and no seed: the loss is convex. Silence is left out.

Axes: N frames, D width, P phones, T frames of an utterance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from skill.data.alignments import Alignments, phone_labels
from skill.data.manifest import Utterance

PHONES = (
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH",
    "IH", "IY", "JH", "K", "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH",
    "UH", "UW", "V", "W", "Y", "Z", "ZH",
)  # fmt: skip
"""The 39 phones of CMUdict without stress."""
_PENALTY = 1e-4  # of the squared weights, beside the mean cross entropy
_ITERATIONS = 60
HOP = 320  # samples per frame of a representation


@dataclass(frozen=True)
class Probe:
    """A linear map of standardised features [D] to phones [P]."""

    mean: Tensor
    deviation: Tensor
    weight: Tensor
    bias: Tensor

    def predict(self, features: Tensor) -> Tensor:
        """The likeliest phone [N] of frames [N, D]."""
        logits = (features - self.mean) / self.deviation @ self.weight + self.bias
        return logits.argmax(-1)

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Per cent of frames [N, D] whose likeliest phone is their label [N]."""
        return 100 * float((self.predict(features) == labels).float().mean())


def fit_probe(features: Tensor, labels: Tensor, phones: int = len(PHONES)) -> Probe:
    """Multinomial logistic regression of features [N, D], labels [N], by L-BFGS."""
    mean, deviation = features.mean(0), features.std(0).clamp(min=1e-6)
    x = (features - mean) / deviation
    weight = torch.zeros(features.shape[1], phones, requires_grad=True)
    bias = torch.zeros(phones, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=_ITERATIONS, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(x @ weight + bias, labels) + _PENALTY * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return Probe(mean, deviation, weight.detach(), bias.detach())


def labels_of_frames(
    alignments: Alignments, utterance: Utterance, frames: int, centre: int
) -> NDArray[np.int64]:
    """Numbers in PHONES [T] of an utterance's frames; -1 where there is silence or nothing.

    Args:
        centre: the sample that the first frame is centred on.
    """
    numbers = {name: index for index, name in enumerate(PHONES)}
    samples = centre + HOP * np.arange(frames)
    return phone_labels(alignments[utterance.id], numbers, samples)


def probe_clips(
    utterances: Sequence[Utterance], alignments: Alignments, train: int, test: int, seed: int
) -> tuple[list[Utterance], list[Utterance]]:
    """`train` aligned clips of the training split and `test` of the others, drawn by `seed`."""
    draw = np.random.default_rng(seed)

    def drawn(splits: tuple[str, ...], count: int) -> list[Utterance]:
        aligned = [u for u in utterances if u.split in splits and u.id in alignments]
        order = draw.permutation(len(aligned))[:count].tolist()
        return [aligned[index] for index in order]

    return drawn(("train",), train), drawn(("dev", "test"), test)


def phones_right(
    train: Mapping[str, Tensor], test: Mapping[str, Tensor], labels: tuple[Tensor, Tensor]
) -> dict[str, float]:
    """Per cent of frames right for each state's features [N, D]; `labels` of train and test."""
    return {
        state: fit_probe(features, labels[0]).accuracy(test[state], labels[1])
        for state, features in train.items()
    }
