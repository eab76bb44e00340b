"""Linear kernels in feature space: one D x D product for each pair of states.

Axes: L states, N frames, D width.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import linear

from skill.similarity.centering import CenteredState
from skill.similarity.hsic import KernelSums, from_centred_products

_CHUNK = 1024  # frames in one float32 product, whose result is added up in float64


def feature_sums(states: list[CenteredState]) -> KernelSums:
    """Kernel sums of all pairs of states; 2 N D^2 operations for each of L(L+1)/2 pairs.

    Both states of a pair are centred a chunk of frames at a time while the chunk is in the cache,
    so the memory beside the states is that of a few chunks. These are laid out dimension by
    dimension, [D, n], as the fastest product of two of them wants it.
    """
    frames, count = states[0].frames, len(states)
    device, widest = states[0].values.device, max(state.width for state in states)
    squares = torch.zeros(count, count, dtype=torch.float64)
    energy = torch.empty(count, frames, dtype=torch.float64, device=device)
    left, right = torch.empty(2, min(_CHUNK, frames) * widest, device=device)
    total = torch.empty(widest**2, dtype=torch.float64, device=device)
    for row, state in enumerate(states):
        for column in range(row, count):
            other = states[column]
            products = total[: state.width * other.width].view(state.width, other.width).zero_()
            for start, stop in _chunks(frames):
                chunk = _transposed(state, start, stop, left)
                if column == row:
                    energy[row, start:stop] = chunk.double().square_().sum(0)
                    products += linear(chunk, chunk)
                else:
                    products += linear(chunk, _transposed(other, start, stop, right))
            flat = products.view(-1)
            squares[row, column] = squares[column, row] = flat @ flat
    traces = energy.sum(1)
    return from_centred_products(frames, squares, (energy @ energy.T).cpu(), traces.cpu())


def _transposed(state: CenteredState, start: int, stop: int, memory: Tensor) -> Tensor:
    """Frames `start` to `stop`, centred, as [D, n] at the beginning of a flat tensor."""
    out = memory[: (stop - start) * state.width].view(state.width, stop - start)
    state.block(start, stop, out=out.T)
    return out


def _chunks(frames: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + _CHUNK, frames)) for start in range(0, frames, _CHUNK))
