"""The metrics of SUPERB: numbers in, a fraction out, no input or output.

Every public function takes the truth first, as jiwer and scikit-learn do, and returns a fraction
(0.05 is 5 %); tables multiply by 100. Where a corpus metric is a ratio of sums, the function that
gives the two sums per item is public too, because the bootstrap resamples items.

Legend: Q queries, D documents.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rapidfuzz.distance import Levenshtein
from scipy.optimize import linear_sum_assignment

from skill.superb.score import superb_score


@dataclass(frozen=True)
class Metric:
    """How a metric is written: its title, whether low is good, and the unit of its values.

    `share`: it cannot exceed 100 %, unlike rates of errors with insertions.
    """

    title: str
    low_is_good: bool
    unit: str = "%"
    share: bool = False


METRICS: dict[str, Metric] = {
    "per": Metric("phone error rate", True),
    "wer": Metric("word error rate", True),
    "cer": Metric("character error rate", True),
    "accuracy": Metric("accuracy", False, share=True),
    "frame_accuracy": Metric("frame accuracy", False, share=True),
    "abx_within": Metric("ABX error within speakers", True),
    "abx_across": Metric("ABX error across speakers", True),
    "mtwv": Metric("maximum term weighted value", False, unit=""),
    "eer": Metric("equal error rate", True, share=True),
    "der": Metric("diarization error rate", True),
    "slot_f1": Metric("slot type F1", False, share=True),
    "slot_cer": Metric("slot value character error rate", True),
}


def metric_of(name: str) -> Metric:
    """A metric of `METRICS`, or the one that a variant belongs to (`der_clean`: `der`)."""
    return METRICS[name if name in METRICS else name.partition("_")[0]]


def format_value(value: float, metric: str) -> str:
    """A value as tables print it: percent with two digits, a term weighted value with four."""
    return f"{value:.2f}" if METRICS[metric].unit else f"{value:.4f}"


__all__ = [
    "Turn",
    "Unscored",
    "accuracy",
    "diarization_counts",
    "diarization_error_rate",
    "edit_counts",
    "equal_error_rate",
    "maximum_term_weighted_value",
    "phone_error_rate",
    "superb_score",
    "word_error_rate",
]


MISSING_SCORE = -10.0


class Turn(NamedTuple):
    """One speaker's stretch of speech: `start` and `end` in seconds."""

    speaker: Hashable
    start: float
    end: float


def edit_counts(
    references: Sequence[Sequence[Hashable]], hypotheses: Sequence[Sequence[Hashable]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Levenshtein distance and reference length of each pair of token sequences.

    Raises:
        ValueError: the two lists have different lengths.
    """
    pairs = list(zip(references, hypotheses, strict=True))
    errors = [Levenshtein.distance(reference, hypothesis) for reference, hypothesis in pairs]
    lengths = [len(reference) for reference, _ in pairs]
    return np.array(errors, dtype=np.int64), np.array(lengths, dtype=np.int64)


def _ratio(counts: tuple[NDArray[np.int64], NDArray[np.int64]]) -> float:
    errors, lengths = counts
    if lengths.sum() == 0:
        raise ValueError("an error rate needs at least one reference token")
    return float(errors.sum() / lengths.sum())


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Σ word edits / Σ reference words over the corpus; tokens are separated by blanks.

    Raises:
        ValueError: lists of different lengths, or no reference word at all.
    """
    return _ratio(edit_counts([r.split() for r in references], [h.split() for h in hypotheses]))


def phone_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Σ phone edits / Σ reference phones; phones are separated by blanks, stress digits count.

    Raises:
        ValueError: lists of different lengths, or no reference phone at all.
    """
    return word_error_rate(references, hypotheses)


def accuracy(references: Sequence[Hashable], hypotheses: Sequence[Hashable]) -> float:
    """Share of items whose answer is right; an item of several labels is right as a whole."""
    hits = [r == h for r, h in zip(references, hypotheses, strict=True)]
    if not hits:
        raise ValueError("an accuracy needs at least one item")
    return sum(hits) / len(hits)


def equal_error_rate(labels: ArrayLike, scores: ArrayLike) -> float:
    """Where the false acceptance rate equals the false rejection rate.

    `labels`: 1 for a target trial, 0 for an impostor; `scores`: higher is more alike. Between two
    operating points the ROC curve is a straight line, as in `brentq` on scikit-learn's curve.

    Raises:
        ValueError: there is no target or no impostor trial.
    """
    target = np.asarray(labels).astype(bool)
    value = np.asarray(scores, dtype=np.float64)
    if target.shape != value.shape or not target.any() or target.all():
        raise ValueError("an equal error rate needs target and impostor trials, one score each")
    order = np.argsort(-value, kind="stable")
    target, value = target[order], value[order]
    last_of_tie = np.append(np.flatnonzero(np.diff(value)), len(value) - 1)
    accepted = np.append(0, np.cumsum(target)[last_of_tie]) / target.sum()
    false_alarms = np.append(0, np.cumsum(~target)[last_of_tie]) / (~target).sum()
    gap = false_alarms - (1 - accepted)
    after = int(np.argmax(gap >= 0))
    before = after - 1
    step = gap[before] / (gap[before] - gap[after])
    return float(false_alarms[before] + step * (false_alarms[after] - false_alarms[before]))


def diarization_counts(
    reference: Iterable[Turn], hypothesis: Iterable[Turn]
) -> tuple[float, float]:
    """Seconds of error (missed + false alarm + confused) and of reference speech, one recording.

    Collar 0, overlap counted, speakers matched one to one so that shared time is greatest.
    """
    turns = [list(reference), list(hypothesis)]
    times = np.unique([t for turn in turns[0] + turns[1] for t in (turn.start, turn.end)])
    if len(times) < 2:
        return 0.0, 0.0
    durations = np.diff(times)
    activity = [_activity(side, times) for side in turns]  # per side [speakers, intervals]
    counts = [side.sum(axis=0) for side in activity]
    shared = (activity[0] * durations) @ activity[1].T
    rows, columns = linear_sum_assignment(shared, maximize=True)
    # miss + false alarm + confusion of an interval is max(n_ref, n_hyp) - n_correct
    wrong = float(np.maximum(counts[0], counts[1]) @ durations - shared[rows, columns].sum())
    return max(wrong, 0.0), float(counts[0] @ durations)


def _activity(turns: list[Turn], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 where a speaker is active in the interval between two neighbouring `times`."""
    speakers = sorted({turn.speaker for turn in turns}, key=repr)
    active = np.zeros((len(speakers), len(times) - 1))
    for turn in turns:
        first, last = np.searchsorted(times, (turn.start, turn.end))
        active[speakers.index(turn.speaker), first:last] = 1
    return active


def diarization_error_rate(
    references: Sequence[Iterable[Turn]], hypotheses: Sequence[Iterable[Turn]]
) -> float:
    """(miss + false alarm + confusion) / reference speech over recordings; collar 0, overlap in.

    One list of turns (`Turn`, or any (speaker, start, end) triple) per recording.

    Raises:
        ValueError: lists of different lengths, or no reference speech at all.
    """
    pairs = zip(references, hypotheses, strict=True)
    counts = [
        diarization_counts([Turn(*t) for t in reference], [Turn(*t) for t in hypothesis])
        for reference, hypothesis in pairs
    ]
    speech = sum(seconds for _, seconds in counts)
    if speech == 0:
        raise ValueError("a diarization error rate needs reference speech")
    return sum(wrong for wrong, _ in counts) / speech


@dataclass(frozen=True)
class Unscored:
    """What a search table has beside the queries and documents that a system scores.

    `queries` have a match somewhere and no score at all; `documents` are scored for no query;
    `matches` [Q] of them contain each scored query.
    """

    queries: int
    documents: int
    matches: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> "Unscored":
        """The same of some scored queries, in that order."""
        return Unscored(self.queries, self.documents, self.matches[rows])


def maximum_term_weighted_value(
    targets: ArrayLike,
    scores: ArrayLike,
    prior: float = 0.0008,
    cost_false_alarm: float = 1.0,
    cost_miss: float = 100.0,
    unscored: Unscored | None = None,
) -> float:
    """max over θ of 1 - mean_q [P_miss(q, θ) + β P_fa(q, θ)], β = C_fa (1 - p) / (C_miss p).

    p is the `prior`; `targets` and `scores` are [Q, D]. One threshold θ serves all queries, so
    scores are z-normed per query first. Queries without a target are left out, as NIST does. The
    value is never below 0 (detect nothing).

    What is `unscored` counts as MISSING_SCORE, as QUESST's scorer fills a table. θ stays above it:
    a system that accepts every unscored pair has a value below 0.

    Raises:
        ValueError: shapes differ, or no query has both a target and a non-target.
    """
    truth = np.asarray(targets).astype(bool)
    value = np.asarray(scores, dtype=np.float64)
    if truth.ndim != 2 or truth.shape != value.shape:
        raise ValueError("targets and scores are two tables of queries by documents")
    if unscored is None:
        unscored = Unscored(0, 0, np.zeros(len(truth), dtype=np.int64))
    documents = truth.shape[1] + unscored.documents
    matches = truth.sum(axis=1) + unscored.matches
    usable = (matches > 0) & (matches < documents)
    if not usable.any():
        raise ValueError("a term-weighted value needs a query with a target and a non-target")
    truth, value, matches = truth[usable], value[usable], matches[usable, None]
    beta = cost_false_alarm * (1 - prior) / (cost_miss * prior)
    gain = np.where(truth, 1 / matches, -beta / (documents - matches))
    gain = (gain / (len(truth) + unscored.queries)).ravel()
    order = np.argsort(-value.ravel(), kind="stable")
    falling = value.ravel()[order]
    last_of_tie = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)
    if unscored.queries or unscored.documents:
        last_of_tie = last_of_tie[falling[last_of_tie] > MISSING_SCORE]
    return float(max(0.0, np.cumsum(gain[order])[last_of_tie].max(initial=0.0)))
