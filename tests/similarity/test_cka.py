"""CKA against its formulas in float64, and what must hold whatever the data."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from skill.similarity.centering import as_states, center_states
from skill.similarity.cka import ESTIMATORS, KERNELS, cka
from skill.similarity.feature_space import feature_sums
from skill.similarity.hsic import align, hsic
from skill.similarity.minibatches import minibatches
from skill.similarity.sample_space import block_sums
from skill.similarity.streaming import StreamingCKA
from skill.utils.errors import SkillError

SEEDS = st.integers(0, 2**31 - 1)


def direct_hsic(k: Tensor, other: Tensor, estimator: str) -> Tensor:
    """HSIC from whole Gram matrices, as Gretton et al. and Song et al. write it."""
    n = len(k)
    if estimator == "biased":
        h = torch.eye(n, dtype=torch.float64) - 1 / n
        return torch.trace(k @ h @ other @ h) / (n - 1) ** 2
    k, other = k - torch.diag(k.diag()), other - torch.diag(other.diag())
    first = torch.trace(k @ other) + k.sum() * other.sum() / ((n - 1) * (n - 2))
    return (first - 2 / (n - 2) * (k @ other).sum()) / (n * (n - 3))


def direct(grams: list[Tensor], estimator: str) -> Tensor:
    """Normalised HSIC of all pairs."""
    values = torch.stack(
        [torch.stack([direct_hsic(a, b, estimator) for b in grams]) for a in grams]
    )
    scale = values.diag().rsqrt()
    return values * torch.outer(scale, scale)


def linear(states: list[Tensor], standardize: bool = False) -> list[Tensor]:
    wide = [x.double() - x.double().mean(0) for x in states]
    if standardize:
        wide = [x / x.std(0, correction=0) for x in wide]
    return [x @ x.T for x in wide]


def rbf(states: list[Tensor], bandwidth: float) -> list[Tensor]:
    grams = []
    for state in states:
        distances = torch.cdist(state.double(), state.double())
        upper = distances[tuple(torch.triu_indices(len(state), len(state), 1))]
        grams.append(torch.exp(-(distances**2) / (2 * (bandwidth * upper.median()) ** 2)))
    return grams


def make(frames: int, widths: tuple[int, ...] = (30, 64, 17), mean: float = 0.0) -> list[Tensor]:
    """States of different widths that share a part of what they carry."""
    generator = torch.Generator().manual_seed(frames)
    shared = torch.randn(frames, 12, generator=generator)
    return [
        shared @ torch.randn(12, width, generator=generator)
        + (1 + index) * torch.randn(frames, width, generator=generator)
        + mean * torch.randn(width, generator=generator)
        for index, width in enumerate(widths)
    ]


def stream(states: list[Tensor], cuts: list[int], estimator: str = "unbiased", **options) -> Tensor:
    streaming = StreamingCKA(estimator, **options)
    for start, stop in itertools.pairwise([0, *cuts, len(states[0])]):
        streaming.update([state[start:stop] for state in states])
    return streaming.result()


@pytest.mark.parametrize("space", ["feature", "sample", "auto"])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
def test_equals_the_formulas(estimator: str, standardize: bool, space: str) -> None:
    states = make(600)
    found = cka(states, estimator, standardize=standardize, space=space)
    assert found.dtype == torch.float64 and found.shape == (3, 3)
    torch.testing.assert_close(
        found, direct(linear(states, standardize), estimator), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
def test_rbf_equals_the_formulas(estimator: str) -> None:
    states = make(700)
    found = cka(states, estimator, kernel="rbf", bandwidth=0.5)
    torch.testing.assert_close(found, direct(rbf(states, 0.5), estimator), rtol=0, atol=1e-6)


@pytest.mark.parametrize("space", ["feature", "sample"])
@pytest.mark.parametrize("mean", [10.0, 1e3, 1e4])
def test_means_far_larger_than_the_spread_do_no_harm(mean: float, space: str) -> None:
    states = make(900, mean=mean)
    expected = direct(linear(states), "unbiased")
    assert (cka(states, space=space) - expected).abs().max() < 1e-6
    assert (stream(states, [3, 500]) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_takes_any_precision_and_numpy(dtype: torch.dtype) -> None:
    states = torch.stack(make(300, (20, 20)))[:, :, :].to(dtype)
    expected = direct(linear(list(states)), "unbiased")
    torch.testing.assert_close(cka(states), expected, rtol=0, atol=1e-6)
    if dtype != torch.bfloat16:
        torch.testing.assert_close(cka(states.numpy()), expected, rtol=0, atol=1e-6)


def test_products_of_chunks_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    states = make(500, (16, 16, 16, 16, 16))
    whole = cka(states, space="feature")
    monkeypatch.setattr("skill.similarity.feature_space._CHUNK", 128)
    torch.testing.assert_close(cka(states, space="feature"), whole, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_minibatch_is_the_mean_of_the_unbiased_hsic_of_batches(kernel: str) -> None:
    states = make(260)
    batches = list(minibatches(260, 64, seed=0))
    assert [len(batch) for batch in batches] == [64, 64, 64, 64, 4]
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(260))
    values = torch.zeros(3, 3, dtype=torch.float64)
    for batch in batches:
        chosen = [state[batch] for state in states]
        grams = linear(chosen) if kernel == "linear" else rbf(chosen, 0.8)
        each = [[direct_hsic(a, b, "unbiased") * len(batch) for b in grams] for a in grams]
        values += torch.tensor(each)
    expected = cka(states, "minibatch", batch_size=64, kernel=kernel)
    torch.testing.assert_close(expected, align(values), rtol=0, atol=1e-6)
    if kernel == "linear":
        streamed = stream(states, [1, 100, 101], "minibatch", batch_size=64)
        torch.testing.assert_close(streamed, expected, rtol=0, atol=1e-7)


def alike_in_time(frames: int, widths: tuple[int, ...] = (12, 20, 16)) -> list[Tensor]:
    """States that drift: neighbouring frames have a correlation of 0.98, as those of speech."""
    generator = torch.Generator().manual_seed(7)
    drift = torch.empty(frames, 8)
    drift[0] = torch.randn(8, generator=generator)
    for frame in range(1, frames):
        step = torch.randn(8, generator=generator)
        drift[frame] = 0.98 * drift[frame - 1] + (1 - 0.98**2) ** 0.5 * step
    return [
        torch.tanh(drift @ torch.randn(8, width, generator=generator))
        + 0.3 * torch.randn(frames, width, generator=generator)
        for width in widths
    ]


def test_minibatches_are_fair_where_neighbours_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    states = alike_in_time(6000)
    full = cka(states)
    drawn = cka(states, "minibatch", batch_size=64)
    consecutive = align(
        sum(64 * hsic(feature_sums(center_states([s[i : i + 64] for s in states])), "unbiased")
            for i in range(0, 5952, 64))
    )  # fmt: skip
    assert (drawn - full).abs().max() < 0.01 < 0.05 < (consecutive - full).abs().max()
    other = cka(states, "minibatch", batch_size=64, seed=1)
    assert not torch.equal(other, drawn) and (other - drawn).abs().max() < 0.02
    streamed = stream(states, [17, 3000], "minibatch", batch_size=64)
    torch.testing.assert_close(streamed, drawn, rtol=0, atol=1e-6)
    monkeypatch.setattr("skill.similarity.minibatches.WINDOW", 1000)  # several windows
    windowed = cka(states, "minibatch", batch_size=64)
    streamed = stream(states, [17, 3000], "minibatch", batch_size=64)
    torch.testing.assert_close(streamed, windowed, rtol=0, atol=1e-6)
    assert (windowed - full).abs().max() < (consecutive - full).abs().max() / 2


DEGENERATE = {
    "constant": lambda x: x.fill_(1.7),
    "all but one frame equal": lambda x: x[1:].fill_(0.3),
    "all frames equally far": lambda x: x.copy_(torch.eye(len(x))),
    "zero": lambda x: x.zero_(),
}


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("frames", [4, 40])
def test_all_estimators_name_the_same_states(frames: int, name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    states = [torch.randn(frames, frames, generator=generator) for _ in range(3)]
    DEGENERATE[name](states[1])
    names = ["a:0", "a:1", "a:2"]
    for estimator, kernel, space in itertools.product(ESTIMATORS, KERNELS, ("feature", "sample")):
        if kernel == "linear" or space == "sample":
            with pytest.raises(SkillError, match="a:1 "):
                cka(states, estimator, kernel=kernel, space=space, names=names)
    for estimator in ESTIMATORS:
        with pytest.raises(SkillError, match="a:1 "):
            stream(states, [2], estimator, names=names)


def silence(states: list[Tensor]) -> list[Tensor]:
    """The first 60 % of the frames are equal, as padding and silence are."""
    for state in states:
        state[: int(0.6 * len(state))] = state[0].clone()
    return states


ORDINARY = {
    "gradients": lambda states: [state.requires_grad_() * 1.0 for state in states],
    "half": lambda states: [state.half() for state in states],
    "bfloat16": lambda states: [state.bfloat16() for state in states],
    "integers": lambda states: [(10 * state).long() for state in states],
    "one layer": lambda states: states[:1],
    "four frames": lambda states: [state[:4] for state in states],
    "five frames": lambda states: [state[:5] for state in states],
    "silence": silence,
    "constant features": lambda states: [
        torch.cat([state, torch.full((len(state), 3), 5.1)], 1) for state in states
    ],
    "tiny values": lambda states: [state * 1e-30 for state in states],
    "huge values": lambda states: [state * 1e30 for state in states],
    "one dimension": lambda states: [state[:, :1] for state in states],
}


@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize("standardize", [False, True])
def test_all_estimators_are_finite_for(name: str, standardize: bool) -> None:
    states = ORDINARY[name](make(300))
    expected = [direct(linear([s.detach() for s in states]), "unbiased")]
    for estimator, kernel, space in itertools.product(ESTIMATORS, KERNELS, ("feature", "sample")):
        if kernel == "linear" or space == "sample":
            options = {"kernel": kernel, "space": space, "standardize": standardize}
            value = cka(states, estimator, batch_size=64, **options)
            assert bool(torch.isfinite(value).all()) and not value.requires_grad
            if (estimator, kernel, standardize) == ("unbiased", "linear", False):
                torch.testing.assert_close(value, expected[0], rtol=0, atol=2e-6)
    for estimator in ESTIMATORS:
        if estimator == "minibatch" and standardize:
            continue
        streamed = stream(states, [2], estimator, batch_size=64, standardize=standardize)
        value = cka(states, estimator, batch_size=64, standardize=standardize)
        torch.testing.assert_close(streamed, value, rtol=0, atol=2e-6)


def test_a_constant_batch_adds_nothing() -> None:
    states = make(256)
    states[1][:128] = 0.5
    value = cka(states, "minibatch", batch_size=4)
    streamed = stream(states, [64], "minibatch", batch_size=4)
    torch.testing.assert_close(streamed, value, rtol=0, atol=1e-6)


def test_values_beyond_single_precision_are_named() -> None:
    states = [x.double() for x in make(20)]
    states[2][5, 1] = 1e300
    for give in (cka, lambda s, **options: stream(s, [], **options)):
        with pytest.raises(SkillError, match="a:2 is NaN or infinite"):
            give(states, names=["a:0", "a:1", "a:2"])


@settings(max_examples=15)
@given(SEEDS, st.lists(st.integers(0, 700), max_size=6), st.sampled_from(["unbiased", "biased"]))
def test_streaming_equals_cached_for_any_batching(
    seed: int, cuts: list[int], estimator: str
) -> None:
    generator = torch.Generator().manual_seed(seed)
    states = [x + 50 * torch.randn(x.shape[1], generator=generator) for x in make(700)]
    for standardize in (False, True):
        expected = cka(states, estimator, standardize=standardize)
        found = stream(states, sorted(cuts), estimator, standardize=standardize)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_streaming_keeps_sums_only_and_does_not_depend_on_the_batching() -> None:
    states = make(3000)
    whole, pieces = StreamingCKA(), StreamingCKA()
    whole.chunk = pieces.chunk = 256
    whole.update(states)
    for start in range(0, 3000, 7):
        pieces.update([state[start : start + 7] for state in states])
        assert pieces._waiting_frames < 256
    assert torch.equal(whole.result(), pieces.result())
    assert sum(m.numel() for m in pieces._moments.values()) == sum(
        (a + 2) * (b + 2) for a, b in itertools.combinations_with_replacement((30, 64, 17), 2)
    )
    torch.testing.assert_close(pieces.result(), cka(states), rtol=0, atol=1e-6)


def test_streaming_goes_on_after_a_result() -> None:
    states = make(400)
    streaming = StreamingCKA()
    streaming.update([state[:90] for state in states])
    torch.testing.assert_close(
        streaming.result(), cka([state[:90] for state in states]), rtol=0, atol=1e-6
    )
    streaming.update([state[90:] for state in states])
    torch.testing.assert_close(streaming.result(), cka(states), rtol=0, atol=1e-6)


@settings(max_examples=20)
@given(
    SEEDS,
    st.integers(8, 300),
    st.floats(1e-3, 1e3),
    st.sampled_from(["linear", "rbf"]),
    st.sampled_from(["unbiased", "biased", "minibatch"]),
)
def test_invariants(seed: int, frames: int, scale: float, kernel: str, estimator: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(4, frames, 6, generator=generator) + torch.randn(frames, 6)
    found = cka(states, estimator, kernel=kernel)
    assert torch.equal(found, found.T)
    assert torch.equal(found.diagonal(), torch.ones(4, dtype=torch.float64))
    assert torch.linalg.eigvalsh(found).min() > -1e-6
    assert found.abs().max() < 1 + 1e-6
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator))[0]
    moved = scale * (states @ rotation) + scale * torch.randn(6, generator=generator)
    torch.testing.assert_close(cka(moved, estimator, kernel=kernel), found, rtol=0, atol=1e-5)


def test_independent_states_have_no_unbiased_similarity_on_average() -> None:
    generator = torch.Generator().manual_seed(0)
    values, biased = [], []
    for _ in range(60):
        states = torch.randn(2, 60, 40, generator=generator)
        values.append(float(cka(states)[0, 1]))
        biased.append(float(cka(states, "biased")[0, 1]))
    assert abs(np.mean(values)) < 4 * np.std(values) / 60**0.5
    assert np.mean(biased) > 0.3


@settings(max_examples=10)
@given(SEEDS, st.lists(st.integers(0, 1), min_size=5, max_size=5).filter(any))
def test_block_sums_give_every_choice_of_blocks(seed: int, times: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(4, 30, (5,), generator=generator)
    bounds = [0, *torch.cumsum(sizes, 0).tolist()]
    states = make(int(sizes.sum()))
    sums = block_sums(center_states(states), bounds)
    kept = torch.repeat_interleave(torch.tensor(times), sizes).bool()
    chosen = [state[kept] for state in states]
    torch.testing.assert_close(
        align(sums.hsic(torch.tensor(times))), cka(chosen), rtol=0, atol=1e-5
    )


def test_repeated_blocks_weigh_every_quadruple_of_distinct_frames() -> None:
    states = [x.double() for x in make(7, (3, 2))]
    times = torch.tensor([2, 1, 3])
    w = times.repeat_interleave(torch.tensor([2, 1, 4])).double()
    k, other = linear(states)
    value = weight = 0.0
    for i, j, q, r in itertools.permutations(range(7), 4):
        each = w[i] * w[j] * w[q] * w[r]
        value += each * k[i, j] * (other[i, j] - 2 * other[i, q] + other[q, r])
        weight += each
    found = block_sums(center_states(states), [0, 2, 3, 7]).hsic(times)[0, 1]
    torch.testing.assert_close(found, value / weight, rtol=1e-5, atol=1e-6)


def test_unbiased_hsic_does_not_see_a_shift_of_the_features() -> None:
    shifted = make(50, mean=3.0)
    sums = block_sums(center_states(shifted), [0, 20, 50])
    times = torch.tensor([3, 1])
    moved = [x + 2.0 for x in shifted]
    again = block_sums(
        [
            s.__class__(x, s.coarse, s.fine, None)
            for x, s in zip(moved, center_states(shifted), strict=True)
        ],
        [0, 20, 50],
    )
    torch.testing.assert_close(again.hsic(times), sums.hsic(times), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        hsic(again.total(), "unbiased"), hsic(sums.total(), "unbiased"), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_is_named(value: float) -> None:
    states = torch.stack(make(50, (5, 5)))
    states[1, 7, 2] = value
    with pytest.raises(SkillError, match="wavlm:1 is NaN or infinite at frame 7"):
        cka(states, names=["wavlm:0", "wavlm:1"])
    with pytest.raises(SkillError, match="wavlm:1 is NaN"):
        StreamingCKA(names=["wavlm:0", "wavlm:1"]).update(states)


@pytest.mark.parametrize("value", [0.0, 1.7, -1e4])
def test_a_constant_state_is_named(value: float) -> None:
    states = torch.stack(make(50, (5, 5)))
    states[0] = value
    with pytest.raises(SkillError, match="wavlm:0 is constant"):
        cka(states, names=["wavlm:0", "wavlm:1"])
    with pytest.raises(SkillError, match="wavlm:0 is constant"):
        stream(list(states), [], names=["wavlm:0", "wavlm:1"])


def test_bad_options_and_shapes_are_errors_in_words() -> None:
    states = torch.stack(make(50, (5, 5)))
    for options, words in [
        ({"estimator": "best"}, "estimator `best`"),
        ({"kernel": "cubic"}, "kernel `cubic`"),
        ({"space": "outer"}, "space `outer`"),
        ({"kernel": "rbf", "space": "feature"}, "feature space"),
        ({"batch_size": 3}, "batch_size 3"),
    ]:
        with pytest.raises(SkillError, match=words):
            cka(states, **options)
    with pytest.raises(SkillError, match="fewer than four"):
        cka(states[:, :3])
    with pytest.raises(SkillError, match=r"not \[L, N, D\]"):
        cka(states[0])
    with pytest.raises(SkillError, match="frames"):
        as_states([states[0], states[1, :-1]])
    with pytest.raises(SkillError, match=r"widths \[4, 4\] follow"):
        streaming = StreamingCKA()
        streaming.update(states)
        streaming.update(states[:, :, :4])
    with pytest.raises(SkillError, match="fewer than four"):
        StreamingCKA().result()
