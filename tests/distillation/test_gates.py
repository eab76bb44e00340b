"""Hard-concrete gates in closed form, sizes as published, and the sparsity target."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skill.distillation import gates
from skill.distillation.gates import HardConcrete
from skill.distillation.pruning import select
from skill.distillation.sparsity import (
    SparsityTarget,
    expected_size,
    full_size,
    reachable_sparsity,
)
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.utils.errors import SkillError


def small(family: str = "wavlm", seed: int = 0) -> SpeechEncoder:
    torch.manual_seed(seed)
    config = EncoderConfig.uniform(
        family,  # type: ignore[arg-type]
        width=64, blocks=3, heads=4, ffn=200, conv=24, pos_conv_kernel=16, pos_conv_groups=4,
    )  # fmt: skip
    return SpeechEncoder(config)


@pytest.mark.parametrize("value", [-3.0, -1.0, 0.0, 2.0])
def test_open_probability_and_its_gradient_against_samples(value: float) -> None:
    torch.manual_seed(0)
    gate = HardConcrete(200_000, 0.5)
    gate.log_alpha.data.fill_(value)
    sample = gate()
    closed_form = 1 / (1 + math.exp(-(value - 2 / 3 * math.log(0.1 / 1.1))))
    assert (sample > 0).float().mean().item() == pytest.approx(closed_form, abs=0.004)
    assert gate.expected_open().item() == pytest.approx(200_000 * closed_form, rel=1e-4)
    gate.expected_open().backward()
    slope = closed_form * (1 - closed_form)
    assert gate.log_alpha.grad is not None
    assert gate.log_alpha.grad[0].item() == pytest.approx(slope, rel=1e-4)
    assert sample.min() >= 0 and sample.max() <= 1


@pytest.mark.parametrize(("closed", "open_at_start"), [(0.01, 0.998), (0.5, 0.832)])
def test_initial_gates_are_dphuberts(closed: float, open_at_start: float) -> None:
    gate = HardConcrete(5000, closed)
    assert gate.log_alpha.mean().item() == pytest.approx(math.log((1 - closed) / closed), abs=1e-3)
    assert gate.log_alpha.std().item() == pytest.approx(0.01, rel=0.1)
    assert gate.open_probability().mean().item() == pytest.approx(open_at_start, abs=1e-3)


def test_evaluation_closes_the_least_likely_and_softens_the_rest() -> None:
    gate = HardConcrete(4, 0.5).eval()
    gate.log_alpha.data = torch.tensor([3.0, -8.0, 0.5, -9.0])
    values = gate()
    assert (values > 0).tolist() == [True, False, True, False]
    assert values[0].item() == pytest.approx(1 / (1 + math.exp(-3.0 / (2 / 3) * 0.8)))


@pytest.mark.parametrize(("family", "size"), [("hubert", 94_371_456), ("wavlm", 94_381_680)])
def test_base_sizes_in_dphuberts_count(family: str, size: int) -> None:
    with torch.device("meta"):
        encoder = SpeechEncoder(EncoderConfig.base(family))  # type: ignore[arg-type]
    assert full_size(encoder) == size
    gates.attach(encoder.to_empty(device="cpu"))
    for _, gate in gates.gates_of(encoder):
        gate.log_alpha.data.fill_(50.0)
    assert sum(g.log_alpha.numel() for _, g in gates.gates_of(encoder)) == 40_592
    assert full_size(encoder) == size
    assert expected_size(encoder).item() == size
    assert reachable_sparsity(encoder) == pytest.approx(0.949, abs=0.001)


def test_expected_size_counts_what_each_gate_is_worth() -> None:
    encoder = small("hubert")
    gates.attach(encoder)
    for _, gate in gates.gates_of(encoder):
        gate.log_alpha.data.fill_(50.0)
    full = expected_size(encoder).item()
    encoder.blocks[1].feed_forward.gate.log_alpha.data[0] = -50.0
    assert full - expected_size(encoder).item() == pytest.approx(2 * 64 + 1)
    encoder.blocks[0].attention.gate.log_alpha.data[2] = -50.0
    one_head = 16 * (4 * 64 + 3)
    assert full - expected_size(encoder).item() == pytest.approx(2 * 64 + 1 + one_head)


def test_the_target_ramps_and_the_multipliers_push_towards_it() -> None:
    encoder = small()
    gates.attach(encoder)
    target = SparsityTarget(encoder, 0.75, ramp=100)
    assert [target.target(step) for step in (0, 50, 100, 1000)] == [0.0, 0.375, 0.75, 0.75]
    assert target(encoder, 1000)[0].item() == 0.0
    penalty, sparsity = target(encoder, 1000)
    penalty.backward()
    gap = float(sparsity.detach()) - 0.75
    assert target.lambda1.grad is not None and target.lambda2.grad is not None
    assert float(target.lambda1.grad) == pytest.approx(gap)
    assert float(target.lambda2.grad) == pytest.approx(gap**2)


def test_an_unreachable_sparsity_is_an_error_before_training() -> None:
    encoder = small()
    gates.attach(encoder, units=("head",))
    with pytest.raises(
        SkillError, match=r"0.75 is out of reach: with all gates closed it is 0\.\d+"
    ):
        SparsityTarget(encoder, 0.75, ramp=0)


def test_unknown_units_and_large_convolutions_are_errors() -> None:
    with pytest.raises(SkillError, match="no gates for hat"):
        gates.attach(small(), units=("hat",))
    large = SpeechEncoder(
        EncoderConfig.uniform(
            "hubert", width=64, blocks=1, heads=4, ffn=20, conv=8, conv_norm="layer", pre_norm=True
        )
    )
    with pytest.raises(SkillError, match="leave conv out"):
        gates.attach(large)


def test_the_selection_closes_the_least_likely_of_the_whole_model_first() -> None:
    encoder = small("hubert")
    gates.attach(encoder, units=("ffn",))
    layers = [block.feed_forward.gate for block in encoder.blocks]
    for place, gate in enumerate(layers):
        gate.log_alpha.data = torch.linspace(2 + place, 12 + place, 200)
    full, unit = full_size(encoder), 2 * 64 + 1
    select(encoder, 60 * unit / full)
    left = [gate.kept for gate in layers]
    assert sum(int((~kept).sum()) for kept in left) == 60
    closed = [gate.log_alpha[~kept] for gate, kept in zip(layers, left, strict=True)]
    kept = torch.cat([gate.log_alpha[kept] for gate, kept in zip(layers, left, strict=True)])
    assert torch.cat(closed).max() <= kept.min()
    for gate in layers:
        gate.log_alpha.data -= 30.0
    select(encoder, 540 * unit / full)
    opened = torch.cat([gate.log_alpha[gate.kept] for gate in layers])
    shut = torch.cat([gate.log_alpha[~gate.kept] for gate in layers])
    assert len(opened) == 60 and opened.min() >= shut.max()


@settings(max_examples=20)
@given(st.sampled_from([0.5, 0.75, 0.8]), st.floats(0.1, 4), st.integers(0, 1000))
def test_the_selection_meets_the_target_globally(sparsity: float, spread: float, seed: int) -> None:
    encoder = small(seed=seed)
    gates.attach(encoder)
    full = full_size(encoder)
    for _, gate in gates.gates_of(encoder):
        gate.log_alpha.data.normal_(0, spread)
    select(encoder, sparsity)
    from skill.distillation.pruning import prune

    size = prune(encoder).num_parameters()
    assert abs(size - (1 - sparsity) * full) <= 0.005 * (1 - sparsity) * full
