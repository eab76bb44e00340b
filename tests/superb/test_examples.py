"""Orders of batches, limits, folds and crops."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from skill.config.tasks import make_task
from skill.superb import train_heads
from skill.superb.examples import (
    Example,
    batch_order,
    cacheable,
    draw,
    group_folds,
    limit_seconds,
    with_crops,
)


def test_orders_are_pure_and_cover_what_they_should():
    examples = [
        Example(f"u{i}", 1000 * (i + 1), tuple([i % 3] * (i % 7 + 1)), 0, lambda: None)
        for i in range(33)
    ]
    for order in ("shuffled", "buckets", "windows", "balanced"):
        first = batch_order(order, examples, 8, epoch=2, seed=5)
        assert first == batch_order(order, examples, 8, epoch=2, seed=5)
        assert first != batch_order(order, examples, 8, epoch=3, seed=5)
    shuffled = batch_order("shuffled", examples, 8, 0, 0)
    assert sorted(i for batch in shuffled for i in batch) == list(range(33))
    buckets = batch_order("buckets", examples, 8, 0, 0)
    assert {len(batch) for batch in buckets} == {4}  # halves; the lone last one is dropped
    assert all(max(batch) - min(batch) == 3 for batch in buckets)
    sizes = [len(batch) for batch in batch_order("buckets", examples[:30], 8, 0, 0)]
    assert sorted(sizes) == [4] * 6 + [6]  # the last bucket is not full, and stays whole
    assert [len(batch) for batch in batch_order("buckets", examples[:5], 8, 0, 0)] == [5]
    assert sorted(batch_order("buckets", examples, 1, 0, 0)) == [[i] for i in range(33)]
    assert sorted(batch_order("buckets", examples, 2, 0, 0)) == [[i] for i in range(1, 33)]
    assert batch_order("buckets", examples[:1], 2, 0, 0) == [[0]]
    windows = batch_order("windows", examples, 8, 0, 0)
    assert len(windows) == 33 and {len(batch) for batch in windows} == {8}
    longer = [Example(e.id, 400_000, e.target, 0, e.read) for e in examples]
    assert {len(batch) for batch in batch_order("windows", longer, 8, 0, 0)} == {4}


def test_balanced_order_draws_every_class_as_often():
    examples = [Example(f"u{i}", 1, (int(i < 10),), 0, lambda: None) for i in range(1000)]
    drawn = [examples[i].target for batch in batch_order("balanced", examples, 32, 0, 0)
             for i in batch]  # fmt: skip
    assert len(drawn) == 992
    assert Counter(drawn)[(1,)] == pytest.approx(496, abs=80)


def test_limits_folds_and_crops_follow_hashes():
    examples = [Example(f"u{i}", 16000, 0, 0, lambda: np.arange(16000.0)) for i in range(50)]
    kept = limit_seconds(examples, seconds=10)
    assert len(kept) == 10 and kept == limit_seconds(reversed(examples), 10)[::-1]
    assert {e.id for e in limit_seconds(examples, 5)} <= {e.id for e in kept}
    groups = group_folds([f"voice{i}" for i in range(15)], 5)
    assert [len(group) for group in groups] == [3] * 5 and len(set.union(*groups)) == 15


def test_an_utterance_is_one_example_whatever_its_length():
    whole = Example("u", 16000, 0, 0, lambda: np.arange(16000.0))
    assert with_crops([whole], 2, 3) == with_crops([whole], 1, 3) == [whole] == cacheable(whole)
    assert draw(whole, np.random.default_rng(0)) is whole
    (long,) = with_crops([whole], 0.25, 3)
    kept = cacheable(long)
    assert [len(part.read()) for part in kept] == [part.samples for part in kept] == [4000] * 3
    assert len({part.read()[0] for part in kept}) == 3
    drawn = [draw(long, np.random.default_rng(n)) for n in range(60)]
    assert set(drawn) == set(kept)
    (fresh,) = with_crops([whole], 0.25, 0)
    starts = [draw(fresh, np.random.default_rng(n)).read()[0] for n in range(2000)]
    assert cacheable(fresh) == [] and len(set(starts)) > 1500
    assert min(starts) < 100 and 11900 < max(starts) <= 12000


@pytest.mark.parametrize("crops", [2, 0])
def test_training_draws_excerpts_anew_each_epoch(crops):
    task = make_task("sid", {"crops": crops, "batch": 4, "accumulate": 1})
    parts = [Example(f"u{i}", 16000 * (1 + 9 * (i % 3)), (0,), 0, lambda: None) for i in range(12)]
    train = with_crops(parts, 8, crops)
    epochs = [list(islice(train_heads._batches(task, train, 0, skip), 3)) for skip in (0, 3, 6)]
    for batches in epochs:  # every utterance once, and none longer than 8 s
        flat = [e for batch in batches for e in batch]
        assert sorted(e.id.split("@")[0] for e in flat) == sorted(e.id for e in parts)
        assert max(e.samples for e in flat) == 128_000
    names = [{e.id for batch in batches for e in batch} for batches in epochs]
    assert names[0] != names[1]
    assert list(islice(train_heads._batches(task, train, 0, 4), 2)) == epochs[1][1:]
