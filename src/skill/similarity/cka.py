"""Centred kernel alignment (CKA) between layers: the measure that SKILL groups layers by.

CKA(X, Y) = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), with the Gram matrices K of X and L of Y over
the same N frames (Kornblith, Norouzi, Lee, Hinton 2019, arXiv:1905.00414, section 3).

Axes: L states, N frames pooled over utterances, D width (may differ from state to state).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from skill.similarity.centering import CenteredState, as_states, center_states
from skill.similarity.feature_space import feature_sums
from skill.similarity.hsic import KernelSums, align, hsic, mean_square, require_spread
from skill.similarity.minibatches import check_batch_size, minibatches
from skill.similarity.sample_space import block_sums
from skill.utils.errors import SkillError

ESTIMATORS = ("unbiased", "biased", "minibatch")
KERNELS = ("linear", "rbf")
_BLOCK = 256
# One Gram entry costs this many floating-point operations beside its dot product: writing it,
# widening it to float64, and its share of the [L, L] product. From measured times of both spaces.
_ENTRY_COST = 300


def cka(
    states: Any,
    estimator: str = "unbiased",
    *,
    kernel: str = "linear",
    bandwidth: float = 0.8,
    standardize: bool = False,
    batch_size: int = 256,
    seed: int = 0,
    space: str = "auto",
    names: Sequence[str] | None = None,
) -> Tensor:
    """CKA between all pairs of states: [L, L] in float64, symmetric, 1 on the diagonal.

    `states` is [L, N, D], or a list of [N, D_l] whose widths may differ (several teachers).
    `estimator`: "unbiased" normalises HSIC_1 and "biased" HSIC_0 (formulas in `skill.similarity.
    hsic`); "minibatch" averages HSIC_1 over batches of `batch_size` frames before it normalises
    (Nguyen, Raghu, Kornblith 2021, arXiv:2010.15327, equation 3), drawn from a permutation that
    `seed` fixes (`skill.similarity.minibatches`). `kernel`: "linear" (x·y), or "rbf" with a width
    of `bandwidth` times the median distance between frames. `standardize` divides each dimension
    by its standard deviation first; a dimension without variance drops out.

    Linear CKA is computed from D x D or from N x N products, whichever is cheaper; `space`
    ("feature" or "sample") overrides that. Products are float32 of centred values, summed in
    float64: means far larger than the spread do no harm. The result has no gradient.

    Raises:
        SkillError: unknown option, fewer than four frames, or a state (named by `names`) that is
            not finite, constant, or equal in all frames but one.
    """
    _check(estimator, kernel, space, batch_size)
    prepared = center_states(as_states(states), names, standardize)
    if estimator == "minibatch":
        total = torch.zeros(len(prepared), len(prepared), dtype=torch.float64)
        squares = torch.zeros(len(prepared), dtype=torch.float64)
        for batch in minibatches(prepared[0].frames, batch_size, seed):
            sums = _sums([state.select(batch) for state in prepared], kernel, bandwidth, space)
            total += len(batch) * hsic(sums, "unbiased")
            squares += len(batch) * mean_square(sums)
        require_spread(total.diagonal(), squares, names)
        return align(total, names)
    sums = _sums(prepared, kernel, bandwidth, space)
    require_spread(hsic(sums, "unbiased").diagonal(), mean_square(sums), names)
    return align(hsic(sums, estimator), names)


def _sums(states: list[CenteredState], kernel: str, bandwidth: float, space: str) -> KernelSums:
    if space == "auto":
        space = "feature" if kernel == "linear" and _feature_is_cheaper(states) else "sample"
    if space == "feature":
        return feature_sums(states)
    frames = states[0].frames
    bounds = [*range(0, frames, _BLOCK), frames]
    return block_sums(states, bounds, kernel=kernel, bandwidth=bandwidth).total()


def _feature_is_cheaper(states: list[CenteredState]) -> bool:
    frames, widths = states[0].frames, [state.width for state in states]
    feature = frames * sum(2 * a * b for i, a in enumerate(widths) for b in widths[i:])
    sample = frames**2 * (sum(widths) + _ENTRY_COST * len(widths))
    return feature < sample


def _check(estimator: str, kernel: str, space: str, batch_size: int) -> None:
    if estimator not in ESTIMATORS:
        raise SkillError(f"similarity: estimator `{estimator}` is not one of {list(ESTIMATORS)}")
    if kernel not in KERNELS:
        raise SkillError(f"similarity: kernel `{kernel}` is not one of {list(KERNELS)}")
    if space not in ("auto", "feature", "sample"):
        raise SkillError(f"similarity: space `{space}` is not one of auto, feature, sample")
    if space == "feature" and kernel != "linear":
        raise SkillError("similarity: only the linear kernel has a finite feature space")
    check_batch_size(batch_size)
