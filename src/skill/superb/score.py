"""The leaderboard's overall score and rank.

Both take results in the leaderboard's units, under these names (`REFERENCE_POINTS`): percentages,
and the maximum term weighted value as published (0.0736).
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple


class Reference(NamedTuple):
    """What maps to 0 points (FBANK) and to 1000 (the frozen topline), as published."""

    fbank: float
    topline: float


REFERENCE_POINTS: dict[str, dict[str, Reference]] = {
    "pr": {"pr": Reference(82.01, 3.53)},
    "asr": {"asr": Reference(23.18, 3.62)},
    "ks": {"ks": Reference(41.3826674, 96.66)},
    "qbe": {"qbe": Reference(0.0058, 0.0736)},
    "sid": {"sid": Reference(20.058174, 90.3)},
    "asv": {"asv": Reference(9.56, 5.11)},
    "sd": {"sd": Reference(10.05, 5.62)},
    "ic": {"ic": Reference(9.649354219, 98.76)},
    "sf": {"sf_f1": Reference(69.64, 89.81), "sf_cer": Reference(52.94, 21.76)},
    "er": {"er": Reference(48.23672168, 67.62)},
}


def superb_score(results: Mapping[str, float], without: Collection[str] = ()) -> float:
    """superb_s: mean over the ten tasks of 1000 (x - FBANK) / (topline - FBANK).

    `results` has the keys pr, asr, ks, qbe, sid, asv, sd, ic, sf_f1, sf_cer, er, less those of the
    tasks that the mean leaves out (`without`). A task of two metrics counts once. The sign of the
    denominator takes care of metrics where low is good.

    Raises:
        ValueError: a metric is missing or unknown: the score is of all its tasks only.
    """
    tasks = {task: points for task, points in REFERENCE_POINTS.items() if task not in without}
    names = {name for metrics in tasks.values() for name in metrics}
    if set(results) != names:
        raise ValueError(
            "the SUPERB score needs exactly these results: "
            f"missing {sorted(names - set(results))}, unknown {sorted(set(results) - names)}"
        )
    points = [
        sum(
            1000 * (results[name] - reference.fbank) / (reference.topline - reference.fbank)
            for name, reference in metrics.items()
        )
        / len(metrics)
        for metrics in tasks.values()
    ]
    return sum(points) / len(points)


def superb_rank(board: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """superb_r: for each upstream, mean over tasks of how many others it strictly beats.

    A task of two metrics counts the mean of both. A metric that an upstream lacks counts 0.
    """

    def beaten(upstream: str, name: str, reference: Reference) -> int:
        if name not in board[upstream]:
            return 0
        sign = 1 if reference.topline > reference.fbank else -1
        value = sign * board[upstream][name]
        return sum(name in other and value > sign * other[name] for other in board.values())

    return {
        upstream: sum(
            sum(beaten(upstream, name, reference) for name, reference in metrics.items())
            / len(metrics)
            for metrics in REFERENCE_POINTS.values()
        )
        / len(REFERENCE_POINTS)
        for upstream in board
    }
