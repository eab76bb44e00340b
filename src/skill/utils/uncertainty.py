"""How sure a mean over voices, seeds of students and seeds of heads is; the test of two of them.

A system's value varies with the voices that were drawn for the test set, with the seed of its
student's training and with the seed of its head's. The mean over N students with H heads each has
the variance

    V = V_voices + V_seeds,   V_voices = C / (C - 1) · Var_R(mean over students and heads),
    V_seeds = s²_students / N (N > 1), else s²_heads / H.

s²_students is the variance of the students' means. Its expectation is σ²_students + σ²_heads / H:
heads are nested in students, so they are in it. A single student says nothing of others: then the
sentence is about this one, and heads are all that is left to vary. s²_heads is pooled over all
systems of a task, since the few heads of one system tell next to nothing.

The interval is ± t' √V with t' = Σ V_k t_{ν_k} / V, Student's quantiles weighted by the parts'
variances (Cochran and Cox), with ν_voices = C - 1, ν_students = N - 1 and the pool's ν_heads. With
so few seeds this covers at least what it says, where the degrees of freedom of Welch and
Satterthwaite give 92.5 % for 95 (simulated in the tests). Both parts hold the interaction of voices
and seeds, so where that is large the interval is too wide, never too narrow.

Sources: Searle, Casella and McCulloch 1992, "Variance components", chapter 3 (nested design);
Cochran and Cox 1950, "Experimental designs", section 4.14 (t'); Bloom 1995, "Minimum detectable
effects"; Bouthillier et al. 2021, "Accounting for variance in machine learning benchmarks" (which
seeds to draw).

Legend: C clusters (voices), R resamples, N seeds of students, H seeds of heads.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit  # scipy.stats takes a second and a half to import

from skill.utils.bootstrap import Interval, Resampled

Systems = Mapping[int, Sequence[Resampled]]
"""{seed of the student: its heads}; what was not trained here has one seed, any number."""


class Variance(NamedTuple):
    """A variance, estimated with so many degrees of freedom."""

    value: float
    freedom: float


class Estimate(NamedTuple):
    """A mean or a difference, and the independent parts of its variance; none is 0."""

    value: float
    parts: tuple[Variance, ...]

    @property
    def error(self) -> float:
        """The standard error √V."""
        return float(sum(part.value for part in self.parts) ** 0.5)

    def _quantile(self, probability: float) -> float:
        """t' at a probability above one half."""
        total = sum(part.value for part in self.parts)
        return sum(p.value / total * float(stdtrit(p.freedom, probability)) for p in self.parts)

    def interval(self, confidence: float = 0.95) -> Interval:
        """The two-sided interval; infinite where nothing is known of the error."""
        half = self.error
        if 0 < half < np.inf:
            half *= self._quantile((1 + confidence) / 2)
        return Interval(self.value - half, self.value + half)

    def p_value(self) -> float:
        """Two-sided, of the hypothesis that the value is 0: the 1 - p interval just reaches 0."""
        if self.error == 0:
            return float(self.value == 0)
        if not np.isfinite(self.error):
            return 1.0
        distance = abs(self.value) / self.error
        # all parts' t are beyond the distance at the smallest of their p, and none at the largest
        of_parts = [2 * float(stdtr(part.freedom, -distance)) for part in self.parts]
        low, high = min(of_parts), max(of_parts)
        for _ in range(60):
            middle = (low + high) / 2
            if -sum(p.value * float(stdtrit(p.freedom, middle / 2)) for p in self.parts) > (
                distance * self.error**2
            ):
                low = middle
            else:
                high = middle
        return high

    def detectable(self, power: float = 0.8, confidence: float = 0.95) -> float:
        """The smallest true value that would be told from 0 with the probability `power`.

        (t' at (1 + confidence) / 2 + t' at power) times the standard error (Bloom 1995).
        """
        if not 0 < self.error < np.inf:
            return self.error
        return self.error * (self._quantile((1 + confidence) / 2) + self._quantile(power))


def pooled(groups: Sequence[Sequence[float]]) -> Variance:
    """The variance within groups, which all share; 0 where every group has a single value."""
    freedom = sum(len(group) - 1 for group in groups)
    squares = sum(float(np.var(group)) * len(group) for group in groups)
    return Variance(squares / max(1, freedom), freedom)


def voices(samples: Sequence[Resampled]) -> Variance:
    """Of the mean of systems on the same resamples: C / (C - 1) times the variance as drawn."""
    clusters = samples[0].clusters
    if clusters < 2:
        return Variance(np.inf, 1)
    means = np.mean([sample.samples for sample in samples], axis=0)
    return Variance(float(np.nanvar(means)) * clusters / (clusters - 1), clusters - 1)


def students(values: Sequence[float]) -> Variance:
    """Of the mean over students, whose values are means over their heads."""
    return Variance(float(np.var(values, ddof=1)) / len(values), len(values) - 1)


def combined(value: float, *parts: Variance) -> Estimate:
    """`value` with what its variance consists of."""
    return Estimate(value, tuple(part for part in parts if part.value > 0))


def estimate(systems: Systems, pool: Variance) -> Estimate:
    """The mean over students and heads; `pool` is the variance of a head."""
    all_heads = [head for heads in systems.values() for head in heads]
    means = _means(systems)
    several = len(means) > 1
    of_seeds = students(means) if several else pool._replace(value=pool.value / len(all_heads))
    return combined(float(np.mean(means)), voices(all_heads), of_seeds)


def difference(first: Systems, second: Systems, pool: Variance) -> Estimate:
    """First minus second on the same test items, from the same draws.

    Students of one seed are compared in pairs, and those without a partner are left out. What has a
    single student (a teacher, log-mel features) is compared with all of the other's.

    Raises:
        ValueError: several students on both sides, and no seed in common.
    """
    shared = [seed for seed in first if seed in second]
    if shared or (len(first) > 1 and len(second) > 1):
        if not shared:
            raise ValueError("a paired test needs a seed in common")
        first, second = ({seed: side[seed] for seed in shared} for side in (first, second))
    means = [_means(first), _means(second)]
    if len(shared) > 1:
        parts = [students([a - b for a, b in zip(*means, strict=True)])]
    else:
        parts = [students(values) for values in means if len(values) > 1]
        single = [side for side in (first, second) if len(side) == 1]
        # one estimate for both sides, so its degrees of freedom count once
        share = sum(1 / len(heads) for side in single for heads in side.values())
        parts.append(pool._replace(value=pool.value * share))
    sides = [np.mean([h.samples for heads in side.values() for h in heads], axis=0)
             for side in (first, second)]  # fmt: skip
    clusters = next(iter(first.values()))[0].clusters
    value = float(np.mean(means[0]) - np.mean(means[1]))
    return combined(value, voices([Resampled(value, sides[0] - sides[1], clusters)]), *parts)


def _means(systems: Systems) -> list[float]:
    return [float(np.mean([head.value for head in heads])) for heads in systems.values()]
