"""Intervals and tests over voices, seeds of students and seeds of heads."""

import numpy as np
import pytest
from scipy.stats import norm, ttest_1samp

from skill.utils.bootstrap import Resampled, resampled_ratio
from skill.utils.uncertainty import (
    Estimate,
    Systems,
    Variance,
    combined,
    difference,
    estimate,
    pooled,
    students,
)

NONE = Variance(0.0, 0)


def system(errors: np.ndarray, clusters: list[int] | None = None, resamples: int = 300) -> Systems:
    """Students and heads of errors [N, H, I], counted item by item."""
    ones = np.ones(errors.shape[-1])
    return {
        seed: [resampled_ratio(head, ones, clusters, resamples) for head in heads]
        for seed, heads in enumerate(errors)
    }


def pool_of(*systems: Systems) -> Variance:
    return pooled([[head.value for head in heads] for s in systems for heads in s.values()])


def test_the_test_sees_what_separate_intervals_do_not() -> None:
    generator = np.random.default_rng(2)
    difficulty = generator.random(400)
    first = (generator.random(400) < difficulty).astype(float)
    second = np.where(generator.random(400) < 0.1, 0.0, first)
    one, other = (system(errors[None, None]) for errors in (first, second))
    gap = difference(one, other, NONE)
    assert gap.value > 0 and gap.interval().low > 0 and gap.p_value() < 0.01
    apart = [estimate(systems, NONE).interval() for systems in (one, other)]
    assert apart[1].high > apart[0].low
    same = difference(one, one, NONE)
    assert same.value == 0 and same.p_value() == 1 and same.interval() == (0, 0)


def test_voices_alone_give_the_normal_interval() -> None:
    """Many items: the interval of a mean difference, with its p-value."""
    generator = np.random.default_rng(3)
    errors = (generator.random((2, 900)) < [[0.30], [0.34]]).astype(float)
    gap = difference(*(system(row[None, None]) for row in errors), NONE)
    expected = errors[0] - errors[1]
    error = expected.std(ddof=1) / 30
    assert gap.value == pytest.approx(expected.mean())
    assert gap.interval().high - gap.value == pytest.approx(1.963 * error, rel=0.12)
    assert gap.p_value() == pytest.approx(2 * norm.sf(abs(expected.mean()) / error), rel=0.5)


def test_students_alone_are_students_paired_test() -> None:
    """No spread between items: three differences, two degrees of freedom; heads are averaged."""
    wrong = np.full((3, 2, 50), 0.5)
    gaps = np.array([[0.05, 0.15], [0.2, 0.2], [0.5, 0.3]])
    gap = difference(system(wrong), system(wrong - gaps[:, :, None]), Variance(9.0, 5))
    expected = ttest_1samp([0.1, 0.2, 0.4], 0.0)
    assert gap.p_value() == pytest.approx(expected.pvalue)
    assert gap.interval() == pytest.approx(tuple(expected.confidence_interval()))


def test_parts_of_a_known_design_have_their_closed_forms() -> None:
    values = np.array([[1.0, 3.0], [2.0, 6.0], [4.0, 5.0]])  # students [3], heads [2] of each
    quiet = {
        seed: [Resampled(value, np.full(9, value), 7) for value in row]
        for seed, row in enumerate(values)
    }
    pool = pool_of(quiet)
    assert pool == Variance(pytest.approx((2 + 8 + 0.5) / 3), 3)  # mean square within students
    assert students([2, 4, 4.5]).value == pytest.approx(np.var([2, 4, 4.5], ddof=1) / 3)
    several = estimate(quiet, pool)
    assert several.value == 3.5 and several.parts == (students([2, 4, 4.5]),)
    alone = estimate({0: quiet[0]}, pool)
    assert alone.parts == (Variance(pool.value / 2, 3),)
    gap = difference({0: quiet[0]}, {5: quiet[1]}, pool)  # two upstreams without a common seed
    assert gap.value == -2 and gap.parts == (Variance(pytest.approx(pool.value), 3),)
    mixed = difference(quiet, {5: quiet[1]}, pool)  # all students, beside a teacher
    assert mixed.parts == (students([2, 4, 4.5]), Variance(pytest.approx(pool.value / 2), 3))


def test_quantiles_are_weighted_by_the_variances() -> None:
    """Cochran and Cox: t' = (V1 t1 + V2 t2) / (V1 + V2); t of 19 and 2 degrees from a table."""
    both = Estimate(2.0, (Variance(0.5, 19), Variance(1.5, 2)))
    half = (0.5 * 2.0930 + 1.5 * 4.3027) / 2 * 2**0.5
    assert both.interval() == pytest.approx((2 - half, 2 + half), abs=1e-3)
    assert both.interval(1 - both.p_value()).low == pytest.approx(0, abs=1e-9)
    assert Estimate(2.0, (Variance(0.5, 19),)).detectable() == pytest.approx(
        (2.0930 + 0.8610) * 0.5**0.5, abs=1e-3
    )


def test_one_voice_says_nothing() -> None:
    one = system(np.random.default_rng(6).random((1, 1, 8)), [0] * 8)
    gap = difference(one, one, NONE)
    assert gap.p_value() == 1 and gap.interval() == (-np.inf, np.inf)
    assert gap.detectable() == np.inf
    assert combined(1.0).interval() == (1, 1)


def test_students_without_a_common_seed_are_not_compared() -> None:
    one = system(np.zeros((2, 1, 8)))
    with pytest.raises(ValueError, match="a seed in common"):
        difference(one, {seed + 2: heads for seed, heads in one.items()}, NONE)


@pytest.mark.parametrize(
    ("shape", "voice", "student", "head", "noise"),
    [
        ((20, 3, 2), 1.0, 1.0, 0.5, 1.0),  # all of them
        ((20, 3, 2), 0.2, 2.0, 0.1, 0.1),  # seeds of students above all
        ((20, 1, 2), 0.5, 0.0, 1.0, 0.5),  # one student: seeds of heads
        ((10, 1, 3), 1.5, 0.0, 0.2, 0.5),  # few voices
        ((20, 3, 1), 0.0, 0.0, 0.0, 5.0),  # nothing but noise of items
    ],
)
def test_intervals_cover_what_they_say(
    shape: tuple[int, int, int], voice: float, student: float, head: float, noise: float
) -> None:
    """Four methods that differ by chance only: 95 % intervals hold 0 in 95 % of studies or more."""
    voices, seeds, heads = shape
    generator = np.random.default_rng(4)
    cluster = np.repeat(np.arange(voices), 3).tolist()
    covered, studies = 0, 250
    for _ in range(studies):
        errors = (
            50
            + generator.normal(size=voices)[cluster]
            + voice * generator.normal(size=(4, 1, 1, voices))[..., cluster]
            + student * generator.normal(size=(4, seeds, 1, 1))
            + head * generator.normal(size=(4, seeds, heads, 1))
            + noise * generator.normal(size=(4, seeds, heads, 3 * voices))
        )
        methods = [system(of_method, cluster, 100) for of_method in errors]
        interval = difference(methods[0], methods[1], pool_of(*methods)).interval()
        covered += interval.low <= 0 <= interval.high
    assert covered >= studies * 0.95 - 3 * (studies * 0.95 * 0.05) ** 0.5


def test_what_is_detectable_is_found_as_often_as_said() -> None:
    generator = np.random.default_rng(5)
    cluster = np.repeat(np.arange(40), 2).tolist()
    found, said = 0, []
    for _ in range(200):
        shared = generator.normal(size=80)
        errors = shared + generator.normal(size=(2, 1, 1, 40))[..., cluster]
        errors[0] += 0.65  # 2.88 standard errors of a difference, √(2 / 40), are 0.64
        gap = difference(*(system(row, cluster, 100) for row in errors), NONE)
        found += gap.p_value() < 0.05
        said.append(gap.detectable())
    assert np.median(said) == pytest.approx(0.65, rel=0.05)
    assert 0.7 < found / 200 < 0.9
