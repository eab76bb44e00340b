"""What a metric is computed from: one type per kind of metric, two numbers of each test item.

Items are kept apart, so that intervals and paired tests can resample them.

Legend: I items.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skill.superb.metrics import equal_error_rate
from skill.utils.bootstrap import Resampled, resampled_ratio, resampled_statistic


class Ratio(NamedTuple):
    """Σ part / Σ total: error rates, accuracies, means."""

    part: NDArray[np.float64]  # [I]
    total: NDArray[np.float64]  # [I]

    def value(self) -> float:
        """The metric as a fraction.

        Raises:
            ValueError: there is nothing to divide by.
        """
        if self.total.sum() == 0:
            raise ValueError("nothing to count")
        return float(self.part.sum() / self.total.sum())

    def resampled(self, clusters: Sequence[Hashable], resamples: int) -> Resampled:
        """The metric of resampled clusters of items.

        Raises:
            ValueError: as `resampled_ratio`.
        """
        return resampled_ratio(self.part, self.total, clusters, resamples)


class TrialScores(NamedTuple):
    """The equal error rate of trials: scores, and 1 for targets, 0 for impostors."""

    score: NDArray[np.float64]  # [I]
    target: NDArray[np.float64]  # [I]

    def value(self) -> float:
        """The metric as a fraction.

        Raises:
            ValueError: there is no target or no impostor trial.
        """
        return equal_error_rate(self.target, self.score)

    def resampled(self, clusters: Sequence[Hashable], resamples: int) -> Resampled:
        """The metric of resampled clusters of trials.

        Raises:
            ValueError: there is no target or no impostor trial.
        """
        return resampled_statistic(
            lambda rows: equal_error_rate(self.target[rows], self.score[rows]),
            len(self.score), clusters, resamples,
        )  # fmt: skip


ItemCounts = Ratio | TrialScores
Counts = dict[str, ItemCounts]
"""Of each metric of a task."""


def counts_of(metric: str, first: NDArray[np.float64], second: NDArray[np.float64]) -> ItemCounts:
    """The two columns of a table of items as the counts of that metric."""
    return TrialScores(first, second) if metric == "eer" else Ratio(first, second)
