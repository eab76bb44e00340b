"""Linear kernels in feature space: one D x D product for each pair of states.

Axes: L states, N frames, D width.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from skill.similarity.hsic import KernelSums, from_centred_products
from skill.similarity.states import WIDENED, Centred

_CHUNK = 2048  # frames in one float32 product, whose result is added up in float64


def feature_sums(states: list[Centred]) -> KernelSums:
    """Kernel sums of all pairs of states; 2 N D^2 operations for each of L(L+1)/2 pairs.

    One state is centred as a whole; those that it meets, a chunk of frames at a time while the
    chunk is in the cache. So the memory beside the states is that of one of them.
    """
    frames, count = states[0].frames, len(states)
    device, widest = states[0].values.device, max(state.width for state in states)
    squares = torch.zeros(count, count, dtype=torch.float64)
    energy = torch.empty(count, frames, dtype=torch.float64, device=device)
    kept = torch.empty(frames * widest, device=device)
    buffer = torch.empty(min(_CHUNK, frames) * widest, device=device)
    product = torch.empty(widest**2, device=device)
    total = torch.empty(widest**2, dtype=torch.float64, device=device)
    for row, state in enumerate(states):
        rows = _shaped(kept, frames, state.width)
        for start, stop in _chunks(frames):
            block = state.block(start, stop, out=rows[start:stop])
            energy[row, start:stop] = _energy(block)
        for column in range(row, count):
            other = states[column]
            part = _shaped(product, state.width, other.width)
            whole = _shaped(total, state.width, other.width).zero_()
            for start, stop in _chunks(frames):
                block = _shaped(buffer, stop - start, other.width)
                torch.mm(rows[start:stop].T, other.block(start, stop, out=block), out=part)
                whole += part
            flat = whole.view(-1)
            squares[row, column] = squares[column, row] = flat @ flat
    traces = energy.sum(1)
    return from_centred_products(frames, squares, (energy @ energy.T).cpu(), traces.cpu())


def _energy(block: Tensor) -> Tensor:
    """Squared norm of every frame, in float64."""
    return torch.cat([part.double().square_().sum(1) for part in block.split(WIDENED)])


def _chunks(frames: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + _CHUNK, frames)) for start in range(0, frames, _CHUNK))


def _shaped(memory: Tensor, rows: int, columns: int) -> Tensor:
    """The first elements of a flat tensor as a matrix: one allocation serves all widths."""
    return memory[: rows * columns].view(rows, columns)
