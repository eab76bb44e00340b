"""Bootstrap confidence intervals, by item or by cluster, and the paired test of two systems.

A corpus metric that is a ratio Σ numerator / Σ denominator (error rates, accuracies) resamples in
closed form from the sums of each cluster; any other metric resamples through a function of item
indices. Utterances of one speaker or session are not independent: they are drawn together.

Legend: I items, C clusters, R resamples, N seeds.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Sums = tuple[ArrayLike, ArrayLike]
"""Numerators and denominators, [I] each."""


class Interval(NamedTuple):
    """Percentile interval of a bootstrapped statistic."""

    low: float
    high: float


class Comparison(NamedTuple):
    """First minus second system: difference, its interval, two-sided bootstrap p-value."""

    difference: float
    interval: Interval
    p_value: float


def _cluster_index(items: int, clusters: Sequence[Hashable] | None) -> NDArray[np.int64]:
    """[I] number of the cluster that each item belongs to; without clusters, every item is one."""
    if clusters is None:
        return np.arange(items)
    if len(clusters) != items:
        raise ValueError(f"{len(clusters)} clusters given for {items} items")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])


def _draws(clusters: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """[R, C] how often each cluster is drawn in each resample."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples)


def _interval(samples: NDArray[np.float64], confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples[np.isfinite(samples)], [tail, 1 - tail])
    return Interval(float(low), float(high))


def _ratios(
    numerators: ArrayLike, denominators: ArrayLike, cluster: NDArray[np.int64], draws: NDArray
) -> NDArray[np.float64]:
    """[R] resampled ratios."""
    clusters = draws.shape[1]
    top = np.bincount(cluster, np.asarray(numerators, dtype=np.float64), minlength=clusters)
    bottom = np.bincount(cluster, np.asarray(denominators, dtype=np.float64), minlength=clusters)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (draws @ top) / (draws @ bottom)


def ratio_interval(
    numerators: ArrayLike,
    denominators: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of Σ numerators / Σ denominators ([I] each), clusters drawn with replacement.

    Raises:
        ValueError: there is no item, or lengths differ.
    """
    numerators, denominators = np.asarray(numerators), np.asarray(denominators)
    if len(numerators) == 0 or len(numerators) != len(denominators):
        raise ValueError("a bootstrap needs items, with a numerator and a denominator each")
    cluster = _cluster_index(len(numerators), clusters)
    draws = _draws(int(cluster.max()) + 1, resamples, seed)
    return _interval(_ratios(numerators, denominators, cluster, draws), confidence)


def statistic_interval(
    statistic: Callable[[NDArray[np.int64]], float],
    items: int,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of `statistic(indices of the drawn items)`, for metrics that are no ratio.

    A resample on which the statistic is undefined (it raises ValueError) is left out.
    """
    cluster = _cluster_index(items, clusters)
    members = [np.flatnonzero(cluster == c) for c in range(int(cluster.max()) + 1)]
    values = []
    for draw in _draws(len(members), resamples, seed):
        drawn = np.concatenate([np.repeat(members[c], draw[c]) for c in np.flatnonzero(draw)])
        try:
            values.append(statistic(drawn))
        except ValueError:
            continue
    return _interval(np.array(values), confidence)


def paired_ratio_test(
    first: Sequence[Sums],
    second: Sequence[Sums],
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Difference of two systems' ratios on the same items, the same clusters drawn for both.

    `first`, `second`: one pair of sums for each of the N seeds that both were trained with; the
    difference is the mean over seeds, and seeds are drawn with replacement, too. (Of few seeds such
    a draw shows less than the whole spread: by N − 1 in N of its variance.) The p-value is twice
    the smaller share of resamples on either side of no difference, with one added so that it is
    never 0.

    Raises:
        ValueError: no seed, other seeds of one system than of the other, or other items.
    """
    pairs = list(zip(first, second, strict=True))
    sizes = {len(np.asarray(part)) for pair in pairs for sums in pair for part in sums}
    if len(sizes) != 1:
        raise ValueError("a paired test needs both systems' results on the same items")
    cluster = _cluster_index(sizes.pop(), clusters)
    draws = _draws(int(cluster.max()) + 1, resamples, seed)
    each = [_ratios(*a, cluster, draws) - _ratios(*b, cluster, draws) for a, b in pairs]
    shares = _draws(len(pairs), resamples, seed + 1) / len(pairs)
    gaps = (np.stack(each, axis=1) * shares).sum(axis=1)
    gaps = gaps[np.isfinite(gaps)]
    smaller = min((gaps <= 0).sum(), (gaps >= 0).sum())
    differences = [np.sum(a[0]) / np.sum(a[1]) - np.sum(b[0]) / np.sum(b[1]) for a, b in pairs]
    p_value = min(1.0, 2 * (smaller + 1) / (len(gaps) + 1))
    return Comparison(float(np.mean(differences)), _interval(gaps, confidence), float(p_value))
