"""A linear probe on frames: which phone is said, from one state alone.

Multinomial logistic regression on standardised frames. The problem is convex, so the result has no
seed; it is solved by L-BFGS.

Axes: N frames, D width, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_DECAY = 1e-4  # of the squared weights, beside the mean cross entropy


class FrameProbe:
    """Weights of a fitted probe.

    Args:
        frames: [N, D] to learn from.
        labels: [N], classes 0 … C − 1.
        classes: C.
        iterations: of L-BFGS at most.

    Raises:
        ValueError: frames that are not finite, or fewer than two classes among the labels.
    """

    def __init__(self, frames: Tensor, labels: Tensor, classes: int, iterations: int = 60) -> None:
        frames = frames.float()
        if not torch.isfinite(frames).all():
            raise ValueError("frames that are not finite")
        if labels.unique().numel() < 2:
            raise ValueError("a probe needs frames of at least two classes")
        self.mean, self.scale = frames.mean(0), frames.std(0).clamp(min=1e-6)
        standard = (frames - self.mean) / self.scale
        self.weight = torch.zeros(frames.shape[1], classes, requires_grad=True)
        self.bias = torch.zeros(classes, requires_grad=True)
        solver = torch.optim.LBFGS(
            [self.weight, self.bias], max_iter=iterations, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            solver.zero_grad()
            value = F.cross_entropy(standard @ self.weight + self.bias, labels)
            value = value + _DECAY * self.weight.square().sum()
            value.backward()
            return value

        solver.step(loss)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def predict(self, frames: Tensor) -> Tensor:
        """[N, D] to the likeliest class of each frame, [N]."""
        standard = (frames.float() - self.mean) / self.scale
        return (standard @ self.weight + self.bias).argmax(-1)
