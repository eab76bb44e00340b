"""Layer states ready for products: checked, centred and scaled block by block, never copied whole.

Axes: L states, N frames, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from skill.utils.errors import SkillError

WIDENED = 256  # frames widened to float64 at a time


@dataclass(frozen=True)
class Centred:
    """One state [N, D] with what is taken off it: values are (x - coarse - fine) * scale.

    `coarse` is the mean in float32, so that x - coarse is exact where it matters, and `fine` is
    what float32 could not hold of the mean.
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

    def cut(self, start: int, stop: int) -> "Centred":
        """The same state over fewer frames, centred over those; the scale stays."""
        coarse, fine = _mean(self.values[start:stop])
        return replace(self, values=self.values[start:stop], coarse=coarse, fine=fine)


def as_states(states: Any) -> list[Tensor]:
    """A list of [N, D_l] tensors from [L, N, D] or from a list of arrays.

    Raises:
        SkillError: wrong number of axes, or states of different length.
    """
    if not isinstance(states, list | tuple):
        whole = torch.as_tensor(states)
        if whole.ndim != 3:
            raise SkillError(f"similarity: states have shape {list(whole.shape)}, not [L, N, D]")
        return list(whole)
    tensors = [torch.as_tensor(state) for state in states]
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


def centred(
    states: list[Tensor], names: Sequence[str] | None = None, standardize: bool = False
) -> list[Centred]:
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


def _centre(values: Tensor, name: str, standardize: bool) -> Centred:
    if not values.is_floating_point():
        values = values.float()
    coarse, fine = _mean(values)
    # One NaN or infinity anywhere makes the mean of its dimension not finite.
    if not bool(torch.isfinite(coarse).all()):
        frame = int(torch.nonzero(~torch.isfinite(values).all(dim=1))[0])
        raise SkillError(f"similarity: {name} is NaN or infinite at frame {frame}")
    if bool((values[0] == values[-1]).all()) and bool((values == values[0]).all()):
        raise SkillError(f"similarity: {name} is constant over all frames")
    state = Centred(values, coarse, fine, None)
    return replace(state, scale=_inverse_spread(state)) if standardize else state


def _mean(values: Tensor) -> tuple[Tensor, Tensor]:
    total = torch.zeros(values.shape[1], dtype=torch.float64, device=values.device)
    for chunk in values.split(WIDENED):
        total += chunk.double().sum(0)
    mean = total / values.shape[0]
    coarse = mean.float()
    return coarse, (mean - coarse).float()


def _inverse_spread(state: Centred) -> Tensor:
    total = torch.zeros(state.width, dtype=torch.float64, device=state.values.device)
    for start in range(0, state.frames, WIDENED):
        block = state.block(start, min(start + WIDENED, state.frames))
        total += block.double().square_().sum(0)
    spread = (total / state.frames).sqrt()
    return torch.where(spread > 0, 1 / spread, 0.0).float()
