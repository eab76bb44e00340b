"""ABX against a plain restatement, closed forms and invariants."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skill.superb.abx import Triphone, _distances, abx_error, abx_errors, cell_error


def plain_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean angle along the cheapest path, cell by cell."""
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    angle = (a @ b.T).clamp(-1, 1).acos() / torch.pi
    best: dict[tuple[int, int], tuple[float, int]] = {(-1, -1): (0.0, 0)}
    for i, j in product(range(len(a)), range(len(b))):
        before = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
        cost, length = min((best[p] for p in before if p in best), key=lambda entry: entry[0])
        best[i, j] = cost + float(angle[i, j]), length + 1
    cost, length = best[len(a) - 1, len(b) - 1]
    return cost / length


def plain_error(triphones: list[Triphone], across: bool) -> float:
    """Loops over every triple, averaged over contexts, speakers and pairs of phones."""
    cells: dict[tuple, list[float]] = {}
    for (i, a), (_, b), (k, x) in product(enumerate(triphones), repeat=3):
        if k == i or a.phone != x.phone or a.phone == b.phone or a.speaker != b.speaker:
            continue
        if len({a.context, b.context, x.context}) > 1 or (x.speaker != a.speaker) != across:
            continue
        to_a, to_b = (plain_distance(x.frames[0], other.frames[0]) for other in (a, b))
        wrong = float(to_a > to_b) + 0.5 * float(to_a == to_b)
        cells.setdefault((a.phone, b.phone, a.speaker, a.context, x.speaker), []).append(wrong)
    levels: dict[tuple, list[float]] = {k: [float(np.mean(v))] for k, v in cells.items()}
    for kept in (3, 2, 0):
        collapsed: dict[tuple, list[float]] = {}
        for key, values in levels.items():
            collapsed.setdefault(key[:kept], []).append(float(np.mean(values)))
        levels = collapsed
    return float(np.mean(levels[()]))


def triphones(seed: int, spread: float = 1.0) -> list[Triphone]:
    """Three phones in two contexts by three speakers, three instances each of 2 to 5 frames."""
    draw = torch.Generator().manual_seed(seed)
    centres = {phone: torch.randn(6, generator=draw) for phone in "abc"}
    return [
        Triphone(
            centres[phone]
            + spread
            * torch.randn(1, 2 + int(torch.randint(4, (), generator=draw)), 6, generator=draw),
            phone,
            context,
            speaker,
        )
        for phone in "abc"
        for context in (("s", "t"), ("k", "t"))
        for speaker in ("one", "two", "three")
        for _ in range(3)
    ]


@pytest.mark.parametrize("across", [False, True])
def test_a_plain_restatement(across: bool) -> None:
    made = triphones(0)
    assert 0.05 < plain_error(made, across) < 0.45
    assert abx_error(abx_errors(made)[0][across]) == pytest.approx(plain_error(made, across))


@pytest.mark.parametrize("across", [False, True])
def test_phones_that_are_apart_have_no_error_and_noise_has_half(across: bool) -> None:
    assert abx_error(abx_errors(triphones(1, spread=0.01))[0][across]) == 0
    alike = [Triphone(torch.ones(1, 3, 6), t.phone, t.context, t.speaker) for t in triphones(1)]
    error = abx_error(abx_errors(alike)[0][across])
    assert error == pytest.approx(0.5)  # ties are half an error


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
def test_warping_is_symmetric_and_knows_a_stretched_copy(t: int, u: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    a, b = torch.randn(t, 5, generator=draw), torch.randn(u, 5, generator=draw)
    forth, back = _distances([a, b], np.array([[0, 1], [1, 0]]))
    assert float(forth) == pytest.approx(plain_distance(a, b), abs=1e-5)
    assert float(forth) == pytest.approx(float(back), abs=1e-5)
    stretched = a.repeat_interleave(2, dim=0)
    assert float(_distances([a, 7 * stretched], np.array([[0, 1]]))[0]) == pytest.approx(
        0, abs=1e-3
    )


def test_padding_changes_no_distance() -> None:
    draw = torch.Generator().manual_seed(0)
    pairs = [(torch.randn(t, 4, generator=draw), torch.randn(9 - t, 4, generator=draw))
             for t in range(1, 9)]  # fmt: skip
    every = np.arange(16).reshape(8, 2)
    together = _distances([instance for pair in pairs for instance in pair], every)
    alone = [_distances(pair, np.array([[0, 1]]))[0] for pair in pairs]
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_a_cell_by_hand() -> None:
    to_a = np.array([[0.0, 0.2], [0.2, 0.0]], dtype=np.float32)
    to_b = np.array([[0.1, 0.2], [0.3, 0.4]], dtype=np.float32)
    # the first X: 0.2 > 0.1, 0.2 = 0.2; the second: 0.2 < 0.3, 0.2 < 0.4
    assert cell_error(to_a, to_b, same=True) == (1 + 0.5) / 4


def test_limits_are_drawn_by_the_seed() -> None:
    made = triphones(3)
    one, same, other = (abx_errors(made, most=2, seed=s) for s in (0, 0, 1))
    assert one == same and one != other


def test_weights_resample_speakers() -> None:
    errors = {("a", "b", "one"): 0.2, ("a", "b", "two"): 0.4, ("b", "a", "two"): 0.1}
    assert abx_error(errors) == pytest.approx((0.3 + 0.1) / 2)
    assert abx_error(errors, {"one": 3, "two": 1}) == pytest.approx((0.25 + 0.1) / 2)
    assert abx_error(errors, {"one": 1}) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="no two phones"):
        abx_error(errors, {})
