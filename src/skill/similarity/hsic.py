"""The Hilbert-Schmidt independence criterion from sums over Gram matrices.

With zero-diagonal Gram matrices K~, L~ over n frames and the column 1 of ones,

    HSIC_1 = [tr(K~L~) + (1'K~1)(1'L~1) / ((n-1)(n-2)) - 2/(n-2) 1'K~L~1] / (n(n-3))

is unbiased (Song, Smola, Gretton, Bedo, Borgwardt 2012, JMLR 13, theorem 2), and with the whole
Gram matrices and H = I - 11'/n,

    HSIC_0 = tr(KHLH) / (n-1)^2
           = [sum_ij k_ij l_ij - 2/n 1'KL1 + (1'K1)(1'L1) / n^2] / (n-1)^2

is the estimator of Gretton et al. 2005 that the first CKA paper uses (arXiv:1905.00414, eq. 3).

Both need sums only, never a Gram matrix. For the linear kernel of features centred over the
frames, K1 = 0, so that K~1 = -diag K and every term is known from the features' product X'Y:

    tr(K~L~)  = |X'Y|_F^2 - sum_i k_ii l_ii,    1'K~1 = -tr K,    1'K~L~1 = sum_i k_ii l_ii,

    HSIC_1 = [|X'Y|_F^2 - n/(n-2) sum_i k_ii l_ii + tr K tr L / ((n-1)(n-2))] / (n(n-3)).

Centring is free of charge: HSIC_1 does not change when a_i + a_j is added to k_ij (i != j), which
is what a shift of the features does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from skill.utils.errors import SkillError

_ROUNDING = 1e-6  # of products in float32


@dataclass(frozen=True)
class KernelSums:
    """What both estimators need of L Gram matrices, in float64; r_i is a row sum of K~.

    `pairs` [L, L] sum_{i != j} k_ij l_ij; `rows` [L, L] sum_i r_i r'_i; `totals` [L] sum_i r_i;
    `diagonal` [L, L] sum_i k_ii l_ii; `mixed` [L, L] sum_i k_ii r'_i; `traces` [L] sum_i k_ii.
    """

    frames: int
    pairs: Tensor
    rows: Tensor
    totals: Tensor
    diagonal: Tensor
    mixed: Tensor
    traces: Tensor


def from_centred_products(
    frames: int, squares: Tensor, diagonal: Tensor, traces: Tensor
) -> KernelSums:
    """Sums of linear kernels of centred features: `squares` [L, L] holds |X'Y|_F^2."""
    return KernelSums(frames, squares - diagonal, diagonal, -traces, diagonal, -diagonal, traces)


def hsic(sums: KernelSums, estimator: str) -> Tensor:
    """HSIC_1 ("unbiased") or HSIC_0 ("biased") between all pairs of kernels: [L, L] in float64."""
    n = sums.frames
    if n < 4:
        raise SkillError(f"similarity: {n} frames are fewer than the four that HSIC_1 needs")
    if estimator == "unbiased":
        totals = torch.outer(sums.totals, sums.totals) / ((n - 1) * (n - 2))
        return (sums.pairs + totals - 2 / (n - 2) * sums.rows) / (n * (n - 3))
    rows = sums.rows + sums.mixed + sums.mixed.T + sums.diagonal
    totals = sums.totals + sums.traces
    centred = sums.pairs + sums.diagonal - 2 / n * rows + torch.outer(totals, totals) / n**2
    return centred / (n - 1) ** 2


def require_spread(variances: Tensor, squares: Tensor, names: Sequence[str] | None = None) -> None:
    """Refuse states that no estimator can compare, by the same rule for all of them.

    HSIC_1 of a kernel with itself is never negative, and 0 where all frames but one are equal, or
    all are equally far from each other: CKA is 0/0 then. HSIC_0 would still give a number, which
    is that of the one frame.

    Args:
        variances: [L] HSIC_1 of each state with itself.
        squares: [L] `mean_square` of each, which rounding is proportional to.

    Raises:
        SkillError: a state has no spread beyond rounding; it is named.
    """
    for state in torch.nonzero(~(variances > _ROUNDING * squares)).flatten().tolist():
        name = names[state] if names else f"state {state}"
        raise SkillError(
            f"similarity: {name} varies too little over these frames to be compared: all but one "
            "are (nearly) equal, or all are equally far from each other"
        )


def mean_square(sums: KernelSums) -> Tensor:
    """[L] the sum of k_ij^2, on the scale of HSIC_1."""
    squares = (sums.pairs + sums.diagonal).diagonal()
    return squares / (sums.frames * (sums.frames - 3))


def align(values: Tensor, names: Sequence[str] | None = None) -> Tensor:
    """CKA [L, L] from HSIC [L, L].

    Raises:
        SkillError: a state whose HSIC with itself is not positive has no CKA.
    """
    variances = values.diagonal()
    for state in torch.nonzero(~(variances > 0)).flatten().tolist():
        name = names[state] if names else f"state {state}"
        raise SkillError(f"similarity: {name} varies too little over these frames to be compared")
    scale = variances.rsqrt()
    result = values * torch.outer(scale, scale)
    result = (result + result.T) / 2
    result.fill_diagonal_(1.0)
    return result
