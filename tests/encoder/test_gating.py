"""A unit whose gate is drawn shut is not computed: outputs and gradients stay what they are."""

import copy
from typing import Any

import pytest
import torch
from helpers.encoders import gated
from torch import Tensor, nn

from skill.distillation.gates import gates_of
from skill.encoder import SpeechEncoder
from skill.encoder.blocks import FeedForward, SelfAttention
from skill.encoder.convolutions import ConvLayer
from skill.encoder.gating import GateSample


class Given(nn.Module):
    """Gates that are what they are told to be; shut ones lie below the clamp, as drawn ones do."""

    def __init__(self, count: int, share: float, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        raw = torch.rand(count, generator=generator, dtype=torch.float64) + 0.1
        shut = torch.randperm(count, generator=generator)[: round(share * count)]
        raw[shut] *= -1
        self.raw = nn.Parameter(raw)

    def forward(self) -> Tensor:
        return self.raw.clamp(0, 1)


def pair(family: str, share: float) -> tuple[SpeechEncoder, SpeechEncoder]:
    """One with gates, and one that computes every unit and multiplies its output by its gate."""
    filters = family == "filters"
    drawn = gated("wavlm" if filters else family, ("conv", "head", "ffn"), filters=filters).double()
    plain = copy.deepcopy(drawn)
    for seed, (one, other) in enumerate(zip(drawn.modules(), plain.modules(), strict=True)):
        if not isinstance(one, ConvLayer | SelfAttention | FeedForward):
            continue
        assert isinstance(other, ConvLayer | SelfAttention | FeedForward)
        assert isinstance(one.gate, nn.Module)
        number = sum(p.numel() for p in one.gate.parameters())
        one.gate, other.gate = Given(number, share, seed), None
        gate = other.values = Given(number, share, seed)
        if isinstance(other, ConvLayer):
            other.register_forward_hook(
                lambda _, __, out, g=gate: (out[0] * g()[:, None], GateSample())
            )
        elif isinstance(other, FeedForward):
            other.output_dense.register_forward_pre_hook(lambda _, x, g=gate: x[0] * g())
        else:
            width = other.head_width
            other.out_proj.register_forward_pre_hook(
                lambda _, x, g=gate, w=width: x[0] * g().repeat_interleave(w)
            )
    return drawn, plain


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.75, 0.95, 1.0])
@pytest.mark.parametrize("family", ["wavlm", "hubert", "filters"])
@pytest.mark.parametrize("exact", [False, True])
def test_outputs_and_gradients_are_those_of_computing_every_unit(
    family: str, share: float, exact: bool
) -> None:
    drawn, plain = pair(family, share)
    drawn.exact_padding = plain.exact_padding = exact
    waveforms = torch.randn(2, 9000, generator=torch.Generator().manual_seed(1)).double()
    results = []
    for encoder in (drawn, plain):
        states, _ = encoder(waveforms, torch.tensor([9000, 7000]))
        sum((state.square().sum() for state in states), torch.zeros(())).backward()
        gradients = {n.replace(".values.", ".gate."): p.grad for n, p in encoder.named_parameters()}
        results.append((states, gradients))
    (states, gradients), (wanted_states, wanted) = results
    for one, other in zip(states, wanted_states, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    assert gradients.keys() == wanted.keys()
    for name, gradient in gradients.items():
        assert gradient is not None, f"{name} has no gradient: the optimiser would pass it over"
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-9, atol=1e-8, msg=name)


def test_less_is_computed_the_more_is_shut() -> None:
    drawn, _ = pair("wavlm", 0.75)
    sizes: dict[str, list[int]] = {"conv": [], "ffn": []}
    for layer in drawn.convolutions:
        layer.register_forward_hook(lambda _, __, out: sizes["conv"].append(out[0].shape[1]))
    for block in drawn.blocks:
        block.feed_forward.intermediate_dropout.register_forward_hook(
            lambda _, __, out: sizes["ffn"].append(out.shape[-1])
        )
    drawn(torch.randn(1, 9000).double())
    assert sizes == {"conv": [8] * 7, "ffn": [16] * 3}  # of 24 and 48, in eights


def test_without_gates_hooks_and_adapters_of_every_layer_take_part() -> None:
    encoder = gated("wavlm", ("conv", "head", "ffn"))
    for module in encoder.modules():
        if hasattr(module, "gate") and not isinstance(module, SpeechEncoder):
            module.gate = None
    assert not list(gates_of(encoder))
    called: set[str] = set()
    names = {
        name
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear | nn.Conv1d | nn.LayerNorm)
    }
    for name in names:

        def note(_: nn.Module, __: Any, ___: Any, name: str = name) -> None:
            called.add(name)

        encoder.get_submodule(name).register_forward_hook(note)
    encoder(torch.randn(1, 9000))
    assert called == names
