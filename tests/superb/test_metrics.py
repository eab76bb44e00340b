"""Metrics against hand-worked cases and packages; the published SUPERB totals; the bootstrap."""

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn.metrics import roc_curve

from skill.superb import metrics, score
from skill.superb.counts import TrialScores
from skill.superb.metrics import Turn
from skill.utils import bootstrap

WORDS = st.lists(st.sampled_from(["a", "b", "cat", "dog"]), max_size=8).map(" ".join)


def test_word_error_rate_by_hand():
    # one substitution and one deletion in the first, one insertion in the second: 3 of 5 words
    assert metrics.word_error_rate(["a b c", "d e"], ["a x", "d e f"]) == pytest.approx(3 / 5)


def test_phone_error_rate_counts_stress():
    assert metrics.phone_error_rate(["AH0 B AW1 T"], ["AH1 B AW1 T"]) == pytest.approx(1 / 4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(WORDS.filter(bool), WORDS), min_size=1, max_size=6))
def test_word_error_rate_equals_jiwer(pairs):
    references, hypotheses = map(list, zip(*pairs, strict=True))
    expected = jiwer.wer(references, hypotheses)
    assert metrics.word_error_rate(references, hypotheses) == pytest.approx(expected)


@pytest.mark.parametrize("references", [[], [""]])
def test_error_rate_needs_a_reference(references):
    with pytest.raises(ValueError, match="reference"):
        metrics.word_error_rate(references, references)


def test_equal_error_rate_by_hand():
    # accepted at 0.8: one of two targets, one of two impostors
    assert metrics.equal_error_rate([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1]) == pytest.approx(0.5)
    assert metrics.equal_error_rate([1, 1, 0, 0], [4, 3, 2, 1]) == 0
    assert metrics.equal_error_rate([0, 0, 1, 1], [4, 3, 2, 1]) == 1
    assert metrics.equal_error_rate([0, 1, 0, 1], [1, 1, 1, 1]) == pytest.approx(0.5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-9, 9)), min_size=2, max_size=60))
def test_equal_error_rate_equals_brentq_on_sklearn(trials):
    labels, scores = (list(column) for column in zip(*trials, strict=True))
    if len(set(labels)) < 2:
        with pytest.raises(ValueError, match="impostor"):
            metrics.equal_error_rate(labels, scores)
        return
    false_alarms, hits, _ = roc_curve(labels, scores)
    curve = interp1d(false_alarms, hits)
    expected = brentq(lambda x: 1 - x - curve(x), 0, 1)
    ours = metrics.equal_error_rate(labels, scores)
    # where the curve is vertical, interp1d's value there is arbitrary and brentq ends at the step
    assert ours == pytest.approx(expected, abs=1e-6)


def test_diarization_error_rate_by_hand():
    reference = [Turn("a", 0, 10), Turn("b", 8, 20)]
    # x is a, y is b: 2 s of overlap missed (8-10), 2 s of false alarm (20-22): 4 of 22 s
    hypothesis = [Turn("x", 0, 8), Turn("y", 8, 22)]
    wrong, speech = metrics.diarization_counts(reference, hypothesis)
    assert (wrong, speech) == (pytest.approx(4), pytest.approx(22))
    assert metrics.diarization_error_rate([reference], [hypothesis]) == pytest.approx(4 / 22)
    # one speaker for all: overlap missed 2, b confused 10, of 22
    assert metrics.diarization_error_rate([reference], [[("x", 0, 20)]]) == pytest.approx(
        (2 + 8) / 22
    )


TURNS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 20), st.integers(1, 9)).map(
        lambda t: Turn(t[0], t[1], t[1] + t[2])
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=50, deadline=None)
@given(TURNS, TURNS)
def test_diarization_equals_counting_seconds(reference, hypothesis):
    def active(turns, second):
        return {t.speaker for t in turns if t.start <= second < t.end}

    best = np.inf
    for names in ({"a": "a", "b": "b"}, {"a": "b", "b": "a"}):
        wrong = 0
        for second in range(40):
            wanted = active(reference, second)
            found = {names[s] for s in active(hypothesis, second)}
            wrong += max(len(wanted), len(found)) - len(wanted & found)
        best = min(best, wrong)
    assert metrics.diarization_counts(reference, hypothesis)[0] == pytest.approx(best)
    renamed = [Turn(ord(t.speaker), t.start, t.end) for t in reference]
    assert metrics.diarization_counts(reference, renamed)[0] == pytest.approx(0)


def test_term_weighted_value_closed_form():
    beta = (1 - 0.0008) / (100 * 0.0008)
    assert beta == pytest.approx(12.49)
    targets = np.zeros((3, 101), dtype=bool)
    targets[0, 0] = targets[1, :2] = True  # the third query has no target and is left out
    scores = np.zeros((3, 101))
    scores[0, 0], scores[1, 0], scores[1, 50] = 5, 4, 3
    scores[2] = 9
    # threshold 4: query 0 found, half of query 1: 1 - (0 + 0.5) / 2. Threshold 3 adds only a false
    # alarm; threshold 0 finds all at β = 12.49.
    assert metrics.maximum_term_weighted_value(targets, scores) == pytest.approx(0.75)
    scores[1, 50] = 6
    assert metrics.maximum_term_weighted_value(targets, scores) == pytest.approx(
        0.75 - beta / 99 / 2
    )
    assert metrics.maximum_term_weighted_value(targets, -scores) == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_term_weighted_value_equals_trying_every_threshold(seed):
    generator = np.random.default_rng(seed)
    targets = generator.random((4, 30)) < 0.2
    targets[0, 0], targets[0, 1] = True, False
    scores = generator.integers(0, 12, (4, 30))
    usable = targets.any(1) & ~targets.all(1)
    best = 0.0
    for threshold in range(13):
        said = scores >= threshold
        miss = (~said & targets).sum(1)[usable] / targets.sum(1)[usable]
        alarm = (said & ~targets).sum(1)[usable] / (~targets).sum(1)[usable]
        best = max(best, 1 - np.mean(miss + 12.49 * alarm))
    assert metrics.maximum_term_weighted_value(targets, scores) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(8))
def test_term_weighted_value_of_a_whole_table(seed):
    """What is not scored is filled with -10, as QUESST's scorer does."""
    generator = np.random.default_rng(seed)
    truth = generator.random((12, 40)) < 0.05
    table = generator.normal(0, 1, (12, 40)) + 3 * truth
    scored_queries, scored_documents = 5, 25
    filled = np.full((12, 40), metrics.MISSING_SCORE)
    filled[:scored_queries, :scored_documents] = table[:scored_queries, :scored_documents]
    part = np.s_[:scored_queries, :scored_documents]
    rest = metrics.Unscored(
        int(truth[scored_queries:].any(axis=1).sum()), 15,
        truth[:scored_queries, scored_documents:].sum(axis=1),
    )  # fmt: skip
    whole = metrics.maximum_term_weighted_value(truth, filled)
    ours = metrics.maximum_term_weighted_value(truth[part], table[part], unscored=rest)
    assert ours == pytest.approx(whole, abs=1e-12)
    assert ours != metrics.maximum_term_weighted_value(truth[part], table[part])
    rows = np.array([0, 0, 3])
    assert rest.take(rows).matches.tolist() == rest.matches[rows].tolist()


def test_accuracy_of_label_tuples():
    assert metrics.accuracy([(1, 2), (3, 4)], [(1, 2), (3, 5)]) == 0.5


PUBLISHED = {  # leaderboard rows: pr asr ks qbe sid asv sd ic sf_f1 sf_cer er, then the total
    "FBANK": (82.01, 23.18, 41.3826674, 0.0058, 20.058174, 9.56, 10.05, 9.649354219, 69.64, 52.94,
              48.23672168, 0.0),
    "DistilHuBERT": (16.27, 13.37, 95.98, 0.0511, 73.54, 8.55, 6.19, 94.99, 82.57, 35.59, 63.02,
                     717.4),
    "DeCoAR 2.0": (14.93, 13.02, 94.48, 0.0406, 74.42, 7.16, 6.59, 90.80, 83.28, 34.73, 62.47,
                   721.7),
    "wav2vec 2.0 Base": (5.74, 6.43, 96.23, 0.0233, 75.18, 6.02, 6.08, 92.35, 88.30, 24.77, 63.43,
                         818.1),
    "HuBERT Large": (3.53, 3.62, 95.29, 0.0353, 90.33, 5.98, 5.75, 98.76, 89.81, 21.76, 67.62,
                     918.6),
    "HuBERT Base": (5.41, 6.42, 96.30, 0.0736, 81.42, 5.11, 5.88, 98.34, 88.53, 25.20, 64.92,
                    941.0),
    "WavLM Base": (4.84, 6.21, 96.79, 0.0870, 84.51, 4.69, 4.55, 98.63, 89.38, 22.86, 65.94,
                   1018.8),
    "WavLM Base+": (3.92, 5.59, 97.37, 0.0988, 89.42, 4.07, 3.50, 99.00, 90.58, 21.20, 68.65,
                    1106.2),
    "WavLM Large": (3.06, 3.44, 97.86, 0.0886, 95.49, 3.77, 3.24, 99.31, 92.21, 18.36, 70.62,
                    1144.5),
}  # fmt: skip
COLUMNS = ("pr", "asr", "ks", "qbe", "sid", "asv", "sd", "ic", "sf_f1", "sf_cer", "er")
BOARD = {name: dict(zip(COLUMNS, row, strict=False)) for name, row in PUBLISHED.items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_superb_score_reproduces_the_published_total(name):
    assert metrics.superb_score(BOARD[name]) == pytest.approx(PUBLISHED[name][-1], abs=0.5)


def test_superb_score_needs_ten_tasks():
    with pytest.raises(ValueError, match=r"missing \['er'\]"):
        score.superb_score({k: v for k, v in BOARD["FBANK"].items() if k != "er"})


def test_rank_counts_how_many_are_beaten():
    ranks = score.superb_rank(BOARD)
    assert ranks["FBANK"] == 0
    assert max(ranks, key=ranks.get) == "WavLM Large"
    # WavLM Base+ beats 7 of 8; HuBERT Large is better in PR, ASR and SID too; in QbE it beats all
    assert ranks["WavLM Base+"] == pytest.approx(7 - 0.3 + 0.1)
    without = score.superb_rank({"a": {"pr": 5.0}, "b": {"pr": 6.0, "ks": 50.0}})
    assert without == {"a": pytest.approx(0.1), "b": 0}


def test_ratio_interval_covers_the_normal_one():
    hits = np.random.default_rng(0).random(2000) < 0.3
    drawn = bootstrap.resampled_ratio(hits, np.ones(2000), resamples=2000)
    low, high = bootstrap.percentiles(drawn)
    half = 1.96 * np.sqrt(0.3 * 0.7 / 2000)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    assert low < hits.mean() < high


def test_clusters_widen_the_interval():
    hits = np.repeat(np.random.default_rng(0).random(40) < 0.5, 50)
    speakers = np.repeat(np.arange(40), 50).tolist()
    items = bootstrap.percentiles(bootstrap.resampled_ratio(hits, np.ones(2000)))
    clustered = bootstrap.percentiles(bootstrap.resampled_ratio(hits, np.ones(2000), speakers))
    assert clustered.high - clustered.low > 5 * (items.high - items.low)


def test_a_ratio_resampled_in_closed_form_equals_the_drawn_one():
    generator = np.random.default_rng(1)
    errors, lengths = generator.integers(0, 5, 60), generator.integers(5, 9, 60)
    clusters = (np.arange(60) // 4).tolist()
    closed = bootstrap.resampled_ratio(errors, lengths, clusters, resamples=200)
    drawn = bootstrap.resampled_statistic(
        lambda i: errors[i].sum() / lengths[i].sum(), 60, clusters, resamples=200
    )
    assert closed.value == pytest.approx(drawn.value) and closed.clusters == drawn.clusters == 15
    assert closed.samples == pytest.approx(drawn.samples)


def test_undefined_resamples_are_left_out():
    labels, scores = np.array([1.0, 0.0, 0.0, 0.0]), np.array([0.9, 0.1, 0.2, 0.95])
    drawn = TrialScores(scores, labels).resampled(["a", "b", "c", "d"], 100)
    assert 20 < np.isnan(drawn.samples).sum() < 45  # the only target is not drawn: 0.75 to the 4th
    assert np.isfinite(bootstrap.percentiles(drawn)).all()
