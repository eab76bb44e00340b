"""Linear kernels in feature space: one D x D product for each pair of states.

Axes: L states, N frames, D width.
"""

import torch
from torch import Tensor

from skill.similarity.hsic import KernelSums, from_centred_products
from skill.similarity.states import Centred

_CHUNK = 4096  # frames in one float32 product, whose result is added up in float64
_WORKSPACE = 0.2  # centred copies that are kept, as a share of the states' own bytes


def feature_sums(states: list[Centred]) -> KernelSums:
    """Kernel sums of all pairs of states; 2 N D^2 operations for each of L(L+1)/2 pairs.

    Each state is centred once to be kept in a panel of rows, and once for every panel before it:
    the panel is as high as the workspace allows, so that memory stays near the states' own.
    """
    frames, count = states[0].frames, len(states)
    device = states[0].values.device
    squares = torch.zeros(count, count, dtype=torch.float64)
    energy = torch.empty(count, frames, dtype=torch.float64, device=device)
    for first, last in _panels(states):
        widths = [state.width for state in states[first:last]]
        panel = torch.empty(frames, sum(widths), device=device)
        for part, state in zip(panel.split(widths, dim=1), states[first:last], strict=True):
            for start in range(0, frames, _CHUNK):
                state.block(start, min(start + _CHUNK, frames), out=part[start : start + _CHUNK])
        for index, part in enumerate(panel.split(widths, dim=1), start=first):
            energy[index] = _energy(part)
        for column in range(first, count):
            height = sum(widths[: column - first + 1])
            product = _product(panel[:, :height], states[column])
            for row, part in enumerate(product.split(widths[: column - first + 1]), start=first):
                squares[row, column] = squares[column, row] = part.square_().sum()
        del panel, part
    traces = energy.sum(1)
    return from_centred_products(frames, squares, (energy @ energy.T).cpu(), traces.cpu())


def _panels(states: list[Centred]) -> list[tuple[int, int]]:
    allowed = _WORKSPACE * sum(s.values.element_size() * s.width for s in states)
    panels, first, height = [], 0, 0.0
    for index, state in enumerate(states):
        if index > first and height + 4 * state.width > allowed:
            panels.append((first, index))
            first, height = index, 0.0
        height += 4 * state.width
    return [*panels, (first, len(states))]


def _energy(values: Tensor) -> Tensor:
    """Squared norm of every frame [N] in float64."""
    return torch.cat([chunk.double().square_().sum(1) for chunk in values.split(1024)])


def _product(rows: Tensor, state: Centred) -> Tensor:
    """rows' X [height, D] in float64; X is centred a chunk of frames at a time."""
    frames, device = rows.shape[0], rows.device
    total = torch.zeros(rows.shape[1], state.width, dtype=torch.float64, device=device)
    product = torch.empty(rows.shape[1], state.width, device=device)
    buffer = torch.empty(min(_CHUNK, frames), state.width, device=device)
    for start in range(0, frames, _CHUNK):
        stop = min(start + _CHUNK, frames)
        block = state.block(start, stop, out=buffer[: stop - start])
        torch.mm(rows[start:stop].T, block, out=product)
        total += product
    return total
