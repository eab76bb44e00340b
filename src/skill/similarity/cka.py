"""Centred kernel alignment (CKA) between layers: the measure that SKILL groups layers by.

CKA(X, Y) = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), with the Gram matrices K of X and L of Y over
the same N frames (Kornblith, Norouzi, Lee, Hinton 2019, arXiv:1905.00414, section 3).

Axes: L states, N frames pooled over utterances, D width (may differ from state to state).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from skill.similarity.centering import Centred, as_states, centred
from skill.similarity.feature_space import feature_sums
from skill.similarity.hsic import KernelSums, align, hsic
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
    space: str = "auto",
    names: Sequence[str] | None = None,
) -> Tensor:
    """CKA between all pairs of states: [L, L] in float64, symmetric, 1 on the diagonal.

    `states` is [L, N, D], or a list of [N, D_l] whose widths may differ (several teachers).
    `estimator`: "unbiased" normalises HSIC_1 and "biased" HSIC_0 (formulas in `skill.similarity.
    hsic`); "minibatch" averages HSIC_1 over consecutive batches of `batch_size` frames before it
    normalises (Nguyen, Raghu, Kornblith 2021, arXiv:2010.15327, equation 3), a last batch weighing
    by its frames and left out below four. `kernel`: "linear" (x·y), or "rbf" with a width of
    `bandwidth` times the median distance between frames. `standardize` divides each dimension by
    its standard deviation first; a dimension without variance drops out.

    Linear CKA is computed from D x D or from N x N products, whichever is cheaper; `space`
    ("feature" or "sample") overrides that. Products are float32 of centred values, summed in
    float64: means far larger than the spread do no harm.

    Raises:
        SkillError: unknown option, fewer than four frames, or a constant or not finite state,
            named by `names`.
    """
    _check(estimator, kernel, space, batch_size)
    prepared = centred(as_states(states), names, standardize)
    if estimator == "minibatch":
        frames = prepared[0].frames
        bounds = [*range(0, frames, batch_size), frames]
        batches = [(start, stop) for start, stop in pairwise(bounds) if stop - start >= 4]
        total = torch.zeros(len(prepared), len(prepared), dtype=torch.float64)
        for start, stop in batches:
            batch = [state.cut(start, stop) for state in prepared]
            sums = _sums(batch, kernel, bandwidth, space)
            total += (stop - start) * hsic(sums, "unbiased")
        return align(total, names)
    return align(hsic(_sums(prepared, kernel, bandwidth, space), estimator), names)


def _sums(states: list[Centred], kernel: str, bandwidth: float, space: str) -> KernelSums:
    if space == "auto":
        space = "feature" if kernel == "linear" and _feature_is_cheaper(states) else "sample"
    if space == "feature":
        return feature_sums(states)
    frames = states[0].frames
    bounds = [*range(0, frames, _BLOCK), frames]
    return block_sums(states, bounds, kernel=kernel, bandwidth=bandwidth).total()


def _feature_is_cheaper(states: list[Centred]) -> bool:
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
    if batch_size < 4:
        raise SkillError(f"similarity: batch_size {batch_size} is below the four that HSIC_1 needs")
