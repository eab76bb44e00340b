"""Orders of batches, limits, folds and crops."""

from collections import Counter

import numpy as np
import pytest

from skill.superb.examples import Example, batch_order, cropped, group_folds, limit_seconds


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
    parts = cropped(examples[0], seconds=0.25, crops=3)
    assert [len(part.read()) for part in parts] == [4000] * 3
    assert len({part.read()[0] for part in parts}) > 1
    assert cropped(examples[0], seconds=2, crops=3) == [examples[0]]
