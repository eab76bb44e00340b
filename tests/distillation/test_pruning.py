"""A pruned encoder gives what the gated one gives, for every kind of gate."""

import pytest
import torch
from helpers.encoders import KINDS, assert_same, gated

from skill.distillation import gates
from skill.distillation.pruning import prune, select
from skill.distillation.sparsity import full_size
from skill.encoder import EncoderConfig, SpeechEncoder


@pytest.mark.parametrize("units", KINDS, ids="+".join)
@pytest.mark.parametrize("family", ["wavlm", "hubert", "filters"])
def test_pruned_equals_gated(family: str, units: tuple[str, ...]) -> None:
    encoder = gated(family.replace("filters", "wavlm"), units, filters=family == "filters").double()
    student = prune(encoder)
    assert student.num_parameters() < full_size(encoder)
    assert not any(gates.is_gate(name) for name, _ in student.named_parameters())
    assert_same(encoder, student)


@pytest.mark.parametrize("family", ["wavlm", "hubert"])
def test_large_models_without_convolutions(family: str) -> None:
    encoder = gated(family, ("head", "ffn", "attention_layer"), large=True).double()
    assert_same(encoder, prune(encoder))


@pytest.mark.parametrize("block", [0, 1])
def test_a_layer_that_loses_all_heads_or_all_units_keeps_its_bias(block: int) -> None:
    encoder = gated("wavlm", ("head", "ffn"))
    encoder.blocks[block].attention.gate.log_alpha.data.fill_(-20.0)
    encoder.blocks[block].feed_forward.gate.log_alpha.data.fill_(-20.0)
    encoder.double()
    student = prune(encoder)
    assert student.config.heads[block] == () and student.config.ffn[block] == 0
    assert student.blocks[block].attention.out_proj.bias.abs().sum() > 0
    assert_same(encoder, student)


def test_few_channels_left_in_the_last_convolution() -> None:
    """The layer norm after it must go on as if the removed channels were zeros."""
    encoder = gated("hubert", ("conv",))
    encoder.feature_extractor.conv_layers[-1].gate.log_alpha.data[2:] = -20.0
    encoder.double()
    student = prune(encoder)
    assert student.config.conv_channels[-1] <= 2
    assert_same(encoder, student)


def test_pruning_twice_equals_pruning_once() -> None:
    encoder = gated("wavlm", ("conv", "head", "ffn"))
    once = prune(encoder)
    gates.attach(once)
    for _, gate in gates.gates_of(once):
        gate.log_alpha.data.normal_(0, 2)
    once.eval().double()
    assert_same(once, prune(once))


def test_the_configuration_says_the_physical_size() -> None:
    student = prune(gated("wavlm", ("conv", "head", "ffn")))
    assert SpeechEncoder(student.config).num_parameters() == student.num_parameters()


def test_base_size_meets_every_target() -> None:
    torch.manual_seed(0)
    encoder = SpeechEncoder(EncoderConfig.base("wavlm"))
    gates.attach(encoder)
    for _, gate in gates.gates_of(encoder):
        gate.log_alpha.data.normal_(0, 3)
    for sparsity in (0.5, 0.75, 0.8, 0.9):
        select(encoder, sparsity)
        size = prune(encoder).num_parameters()
        assert size == pytest.approx((1 - sparsity) * 94_381_680, rel=0.005)
