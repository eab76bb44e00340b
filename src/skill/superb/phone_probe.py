"""What a linear classifier sees of phones in single frames of a representation.

The quantity is per cent of frames right, on clips that the classifier was not fitted on. It has no
sequence model, no learning rate and no seed: the loss is convex. Silence is left out.

Axes: N frames, D width, P phones, T frames of an utterance.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PHONES = (
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH",
    "IH", "IY", "JH", "K", "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH",
    "UH", "UW", "V", "W", "Y", "Z", "ZH",
)  # fmt: skip
"""The 39 phones of CMUdict without stress."""
_PENALTY = 1e-4  # of the squared weights, beside the mean cross entropy
_ITERATIONS = 60


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
