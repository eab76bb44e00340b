"""Layer states ready for products: checked, centred and scaled block by block, never copied whole.

Axes: L states, N frames, D width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from skill.utils.errors import SkillError

WIDENED = 256  # frames widened to float64 at a time
_SAFE = (1e-8, 1e8)  # sums of squares of these fit into float32


@dataclass(frozen=True)
class CenteredState:
    """One state [N, D] with what is taken off it: values are (x - coarse - fine) * scale.

    `coarse` is the mean in float32, so that x - coarse is exact where it matters, and `fine` is
    what float32 could not hold of the mean. `scale` standardises, or brings values whose squares
    float32 does not hold near 1 (CKA does not see a scale).
    """

    values: Tensor
    coarse: Tensor
    fine: Tensor
    scale: Tensor | None

    @property
    def frames(self) -> int:
        return self.values.shape[0]

    @property
    def width(self) -> int:
        return self.values.shape[1]

    def block(self, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Frames `start` to `stop`, centred, in float32 [stop - start, D]; written to `out`."""
        if out is None:
            out = torch.empty(stop - start, self.width, device=self.values.device)
        torch.sub(self.values[start:stop], self.coarse, out=out)
        out -= self.fine
        if self.scale is not None:
            out *= self.scale
        return out

    def select(self, frames: Tensor) -> "CenteredState":
        """The same state over the frames of these numbers, centred over them; the scale stays."""
        values = self.values[frames.to(self.values.device)]
        coarse, fine = _mean(values)
        return replace(self, values=values, coarse=coarse, fine=fine)


def as_states(states: Any) -> list[Tensor]:
    """A list of [N, D_l] tensors, without gradients, from [L, N, D] or from a list of arrays.

    Raises:
        SkillError: wrong number of axes, or states of different length.
    """
    if not isinstance(states, list | tuple):
        stacked = torch.as_tensor(states).detach()
        if stacked.ndim != 3:
            raise SkillError(f"similarity: states have shape {list(stacked.shape)}, not [L, N, D]")
        return list(stacked)
    tensors = [torch.as_tensor(state).detach() for state in states]
    for index, tensor in enumerate(tensors):
        if tensor.ndim != 2:
            raise SkillError(
                f"similarity: state {index} has shape {list(tensor.shape)}, not [N, D]"
            )
        if tensor.shape[0] != tensors[0].shape[0]:
            raise SkillError(
                f"similarity: state {index} has {tensor.shape[0]} frames, "
                f"state 0 has {tensors[0].shape[0]}; all states need the same frames"
            )
    return tensors


def center_states(
    states: list[Tensor], names: Sequence[str] | None = None, standardize: bool = False
) -> list[CenteredState]:
    """Check the states and find the mean (and spread) of every dimension.

    Raises:
        SkillError: no state, fewer than four frames, or a state with NaN, infinity or no variance.
    """
    if not states:
        raise SkillError("similarity: no states were given")
    if states[0].shape[0] < 4:
        raise SkillError(f"similarity: {states[0].shape[0]} frames are fewer than four")
    return [
        _centre(state, names[index] if names else f"state {index}", standardize)
        for index, state in enumerate(states)
    ]


def _centre(values: Tensor, name: str, standardize: bool) -> CenteredState:
    if not values.is_floating_point():
        values = values.float()
    coarse, fine = _mean(values)
    # One NaN or infinity anywhere makes the mean of its dimension not finite.
    if not bool(torch.isfinite(coarse).all()):
        bad = torch.nonzero(~torch.isfinite(values.float()).all(dim=1)).flatten().tolist()
        where = f"at frame {bad[0]}" if bad else "in its mean"
        raise SkillError(f"similarity: {name} is NaN or infinite {where}")
    if bool((values[0] == values[-1]).all()) and bool((values == values[0]).all()):
        raise SkillError(f"similarity: {name} is constant over all frames")
    state = CenteredState(values, coarse, fine, None)
    return replace(state, scale=_inverse_spread(state) if standardize else _inverse_size(state))


def _mean(values: Tensor) -> tuple[Tensor, Tensor]:
    total = torch.zeros(values.shape[1], dtype=torch.float64, device=values.device)
    for chunk in values.split(WIDENED):
        total += chunk.double().sum(0)
    mean = total / values.shape[0]
    coarse = mean.float()
    return coarse, (mean - coarse).float()


def _inverse_spread(state: CenteredState) -> Tensor:
    total = torch.zeros(state.width, dtype=torch.float64, device=state.values.device)
    for start in range(0, state.frames, WIDENED):
        block = state.block(start, min(start + WIDENED, state.frames))
        total += block.double().square_().sum(0)
    spread = (total / state.frames).sqrt()
    return torch.where(spread > 0, 1 / spread, 0.0).float()


def power_of_two(largest: float) -> float:
    """The power of two that brings values up to `largest` to 0.5..1: nothing is rounded by it."""
    return 2.0 ** -math.frexp(largest)[1] if largest > 0 else 1.0


def _inverse_size(state: CenteredState) -> Tensor | None:
    """A scale [1] for states of which float32 cannot hold a product; None for all others."""
    largest = max(
        float(state.block(start, min(start + WIDENED, state.frames)).abs().max())
        for start in range(0, state.frames, WIDENED)
    )
    if not 0 < largest < math.inf or _SAFE[0] < largest < _SAFE[1]:
        return None
    return torch.tensor([power_of_two(largest)], device=state.values.device)
