"""Distances in closed form and against their definitions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skill.distillation.losses import DISTANCES, cosine, distance, l1, l2, log_sigmoid_cosine


def frames(seed: int) -> torch.Tensor:
    return torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(seed))


def test_closed_forms() -> None:
    ones = torch.ones(1, 3, 4)
    assert l1(ones, 3 * ones).item() == pytest.approx(2)
    assert l2(ones, 3 * ones).item() == pytest.approx(4)
    assert cosine(ones, 3 * ones).item() == pytest.approx(-1)
    assert cosine(ones, -ones).item() == pytest.approx(1)
    assert log_sigmoid_cosine(ones, ones).item() == pytest.approx(math.log(1 + math.exp(-1)))


@given(st.integers(0, 10_000), st.floats(0.1, 10))
def test_cosine_ignores_scale_and_the_best_is_equality(seed: int, scale: float) -> None:
    x, y = frames(seed), frames(seed + 1)
    assert cosine(scale * x, y).item() == pytest.approx(cosine(x, y).item(), abs=1e-5)
    for function in DISTANCES.values():
        assert function(y, y).item() <= function(x, y).item() + 1e-6


def test_weighted_sum() -> None:
    x, y = frames(0), frames(1)
    total = distance(x, y, {"l1": 2.0, "cosine": 0.5, "l2": 0.0})
    assert total.item() == pytest.approx(2 * l1(x, y).item() + 0.5 * cosine(x, y).item())
    with pytest.raises(KeyError, match="l3"):
        distance(x, y, {"l3": 1.0})
