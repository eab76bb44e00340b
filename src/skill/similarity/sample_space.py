"""Kernels in sample space: Gram matrices a tile at a time, summed over pairs of blocks of frames.

The sums between blocks are worth more than their total. Where a block is an utterance, the exact
HSIC of any choice of utterances, also with repetitions, follows from them without touching a frame
again: the bootstrap and the study of calibration size live on that.

Axes: L states, N frames, U blocks, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from skill.similarity.centering import CenteredState
from skill.similarity.hsic import KernelSums
from skill.utils.errors import SkillError

_MEDIAN_FRAMES = 1000  # evenly spaced frames that the median distance is taken over


@dataclass(frozen=True)
class BlockSums:
    """Sums of zero-diagonal Gram matrices between blocks of frames.

    `products` [U, U, L, L]: sum of k_ij l_ij over i in one block and j != i in the other, float64;
    `rows` [L, N, U]: sum of k_ij over j != i in a block, float32; `diagonal` [L, N]: k_ii;
    `sizes` [U]: frames in each block.
    """

    products: Tensor
    rows: Tensor
    diagonal: Tensor
    sizes: Tensor

    def total(self) -> KernelSums:
        """Sums over all frames."""
        rows, diagonal = self.rows.double().sum(2), self.diagonal
        return KernelSums(
            frames=int(self.sizes.sum()),
            pairs=self.products.sum((0, 1)),
            rows=rows @ rows.T,
            totals=rows.sum(1),
            diagonal=diagonal @ diagonal.T,
            mixed=diagonal @ rows.T,
            traces=diagonal.sum(1),
        )

    def hsic(self, times: Tensor) -> Tensor:
        """HSIC_1 [L, L] of a sample that holds block u `times[u]` times.

        HSIC_1 is the mean of k_ij (l_ij - 2 l_iq + l_qr) over all distinct i, j, q, r (Song et al.
        2012, theorem 2). A frame that was drawn several times is no independent evidence, so the
        indices stay distinct and each quadruple weighs w_i w_j w_q w_r, with w the times that a
        frame's block was drawn. The sums over free indices are known from the blocks; coinciding
        indices are taken out of them by inclusion and exclusion. With P(a, b) = sum_{i != j}
        a_i b_j k_ij l_ij and r = K~w, s_p = sum_i w_i^p.

        Raises:
            SkillError: fewer than four frames were drawn.
        """
        w = times.double()
        frame = torch.repeat_interleave(w, self.sizes)
        if int((frame > 0).sum()) < 4:
            raise SkillError("similarity: a sample of utterances holds fewer than four frames")
        s1, s2, s3, s4 = (float((frame**power).sum()) for power in (1, 2, 3, 4))
        p11, p12, p13, p22 = (
            torch.einsum("u,v,uvab->ab", w**a, w**b, self.products)
            for a, b in ((1, 1), (1, 2), (1, 3), (2, 2))
        )
        row, square_row = ((self.rows @ (w**p).to(self.rows.dtype)).double() for p in (1, 2))
        r1, r2 = (row * frame) @ row.T, (row * frame**2) @ row.T
        across = (row * frame) @ square_row.T
        totals = row @ frame
        two = (s1**2 - s2) * p11 - 4 * s1 * p12 + 4 * p13 + 2 * p22
        three = s1 * (r1 - p12) - (r2 - p22) - (across + across.T - 2 * p13)
        four = torch.outer(totals, totals) - 4 * r2 + 2 * p22
        quadruples = s1**4 - 6 * s1**2 * s2 + 3 * s2**2 + 8 * s1 * s3 - 6 * s4
        return (two - 2 * three + four) / quadruples


def block_sums(
    states: list[CenteredState],
    bounds: Sequence[int],
    *,
    kernel: str = "linear",
    bandwidth: float = 0.8,
) -> BlockSums:
    """Sums between the blocks that `bounds` (0, ..., N) cut the frames into.

    N^2 D operations for each state and N^2 L^2 for the sums, half of both saved by symmetry;
    memory is that of the result and of one tile.
    """
    count, blocks, device = len(states), len(bounds) - 1, states[0].values.device
    products = torch.zeros(blocks, blocks, count, count, dtype=torch.float64, device=device)
    rows = torch.zeros(count, states[0].frames, blocks, device=device)
    diagonal = torch.zeros(count, states[0].frames, dtype=torch.float64, device=device)
    widths = [_width(state, bandwidth) if kernel == "rbf" else None for state in states]
    for u in range(blocks):
        block = slice(bounds[u], bounds[u + 1])
        left = [state.block(block.start, block.stop) for state in states]
        for v in range(u, blocks):
            other = slice(bounds[v], bounds[v + 1])
            right = left if u == v else [s.block(other.start, other.stop) for s in states]
            tile = torch.stack(
                [_gram(x, y, width) for x, y, width in zip(left, right, widths, strict=True)]
            )
            if u == v:
                own_diagonal = tile.diagonal(dim1=1, dim2=2)
                diagonal[:, block] = own_diagonal.double()
                own_diagonal.zero_()
            tile = tile.double()
            rows[:, block, v] = tile.sum(2).float()
            rows[:, other, u] = tile.sum(1).float()
            flat = tile.flatten(1)
            products[u, v] = products[v, u] = flat @ flat.T
    sizes = torch.tensor(bounds).diff()
    return BlockSums(products.cpu(), rows.cpu(), diagonal.cpu(), sizes)


def _gram(left: Tensor, right: Tensor, width: float | None) -> Tensor:
    """Gram tile [n, m] of the linear kernel, or with a width of exp(-|x - y|^2 / (2 width^2))."""
    inner = left @ right.T
    if width is None:
        return inner
    distances = _squared(inner, left, right)
    return distances.mul_(-0.5 / width**2).exp_()


def _squared(inner: Tensor, left: Tensor, right: Tensor) -> Tensor:
    sides = left.square().sum(1)[:, None] + right.square().sum(1)
    return (sides - 2 * inner).clamp_(min=0.0)


def _width(state: CenteredState, bandwidth: float) -> float:
    """`bandwidth` times the median distance between frames (Kornblith et al. 2019, section 4).

    Where most frames are equal (silence, padding) the median would be 0, and the kernel undefined:
    it is taken over the frames that differ. 1 where none does, which any width serves.
    """
    median = _median_distance(state)
    if median == 0:
        distinct = replace(state, values=torch.unique(state.values, dim=0))
        median = _median_distance(distinct) if distinct.frames > 1 else 0.0
    return bandwidth * median if median > 0 else 1.0


def _median_distance(state: CenteredState) -> float:
    spaced = replace(state, values=state.values[:: -(-state.frames // _MEDIAN_FRAMES)])
    frames = spaced.block(0, spaced.frames)
    distances = _squared(frames @ frames.T, frames, frames)
    above = torch.triu_indices(len(frames), len(frames), offset=1, device=frames.device)
    return float(distances[above[0], above[1]].median().sqrt())
