"""Bootstrap by item or by cluster, and percentile intervals.

A corpus metric that is a ratio Σ numerator / Σ denominator (error rates, accuracies) resamples in
closed form from the sums of each cluster; any other metric resamples through a function of item
indices. Utterances of one speaker or session are not independent: they are drawn together.

Legend: I items, C clusters, R resamples.
"""

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Interval(NamedTuple):
    """From `low` to `high`; 95 % where nothing else is said."""

    low: float
    high: float


class Resampled(NamedTuple):
    """A statistic of one trained system, and what it is in each resample of the test items."""

    value: float
    samples: NDArray[np.float64]
    """[R]; NaN where a resample leaves the statistic undefined."""
    clusters: int


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


def _ratios(
    numerators: ArrayLike, denominators: ArrayLike, cluster: NDArray[np.int64], draws: NDArray
) -> NDArray[np.float64]:
    """[R] resampled ratios."""
    clusters = draws.shape[1]
    top = np.bincount(cluster, np.asarray(numerators, dtype=np.float64), minlength=clusters)
    bottom = np.bincount(cluster, np.asarray(denominators, dtype=np.float64), minlength=clusters)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (draws @ top) / (draws @ bottom)


def resampled_ratio(
    numerators: ArrayLike,
    denominators: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Resampled:
    """Σ numerators / Σ denominators ([I] each), clusters drawn with replacement.

    Raises:
        ValueError: there is no item, or lengths differ.
    """
    numerators, denominators = np.asarray(numerators), np.asarray(denominators)
    if len(numerators) == 0 or len(numerators) != len(denominators):
        raise ValueError("a bootstrap needs items, with a numerator and a denominator each")
    cluster = _cluster_index(len(numerators), clusters)
    count = int(cluster.max()) + 1
    samples = _ratios(numerators, denominators, cluster, _draws(count, resamples, seed))
    return Resampled(float(numerators.sum() / denominators.sum()), samples, count)


def resampled_statistic(
    statistic: Callable[[NDArray[np.int64]], float],
    items: int,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Resampled:
    """`statistic(indices of the drawn items)`, for metrics that are no ratio.

    A resample on which the statistic is undefined is one on which it raises ValueError.
    """
    cluster = _cluster_index(items, clusters)
    members = [np.flatnonzero(cluster == c) for c in range(int(cluster.max()) + 1)]
    samples = np.full(resamples, np.nan)
    for row, draw in enumerate(_draws(len(members), resamples, seed)):
        indices = np.concatenate([np.repeat(members[c], draw[c]) for c in np.flatnonzero(draw)])
        with suppress(ValueError):
            samples[row] = statistic(indices)
    return Resampled(statistic(np.arange(items)), samples, len(members))


def percentiles(resampled: Resampled, confidence: float = 0.95) -> Interval:
    """The percentile interval; undefined resamples are left out."""
    tail = (1 - confidence) / 2
    samples = resampled.samples
    low, high = np.quantile(samples[np.isfinite(samples)], [tail, 1 - tail])
    return Interval(float(low), float(high))
