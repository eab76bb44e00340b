"""Hard-concrete gates on an encoder's units.

A gate z in [0, 1] is a stretched, clamped binary concrete variable (Louizos et al. 2018,
arXiv:1712.01312), with DPHuBERT's constants (Peng et al. 2023, arXiv:2305.17651):

    u ~ U(0, 1),  s = σ((log u − log(1 − u) + log α) / β),  z = clamp(1.2 s − 0.1, 0, 1),  β = 2/3
    P(z > 0) = σ(log α − β log(0.1 / 1.1))

In evaluation a module with n gates and expected number e of open ones closes the round(n − e) least
likely ones; the others have the value σ(0.8 log α / β).
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from skill.encoder import SpeechEncoder
from skill.utils.errors import SkillError

BETA = 2 / 3
_LOW, _HIGH = -0.1, 1.1
_EPS = 1e-6
_SHARPNESS = 0.8  # of the values in evaluation
_CLOSED_AT_START = {
    "conv": 0.01,
    "head": 0.01,
    "ffn": 0.5,
    "attention_layer": 0.01,
    "ffn_layer": 0.01,
}
UNITS = tuple(_CLOSED_AT_START)


class HardConcrete(nn.Module):
    """A vector of gates. `kept` [n] overrides which are open in evaluation (`pruning.select`)."""

    kept: Tensor | None

    def __init__(self, size: int, closed: float) -> None:
        super().__init__()
        mean = math.log((1 - closed) / closed)
        self.log_alpha = nn.Parameter(torch.empty(size).normal_(mean, 0.01))
        self.register_buffer("kept", None, persistent=False)

    def forward(self) -> Tensor:
        """[n]: a sample in training, the deterministic values in evaluation."""
        if not self.training:
            return self.values()
        u = torch.empty_like(self.log_alpha).uniform_(_EPS, 1 - _EPS)
        s = torch.sigmoid((torch.logit(u) + self.log_alpha) / BETA)
        return (s * (_HIGH - _LOW) + _LOW).clamp(0, 1)

    def open_probability(self) -> Tensor:
        """P(z > 0) of each gate, [n]."""
        return torch.sigmoid(self.log_alpha - BETA * math.log(-_LOW / _HIGH))

    def expected_open(self) -> Tensor:
        """The expected number of open gates, the expected L0 norm."""
        return self.open_probability().sum()

    def values(self) -> Tensor:
        """[n], the values in evaluation; exactly 0 where closed."""
        soft = torch.sigmoid(self.log_alpha / BETA * _SHARPNESS)
        return soft * (self.chosen() if self.kept is None else self.kept)

    def chosen(self) -> Tensor:
        """[n] boolean, the round(expected) most likely gates."""
        number = round(float(self.expected_open().detach()))
        order = torch.argsort(self.log_alpha.detach(), descending=True, stable=True)
        kept = torch.zeros_like(self.log_alpha, dtype=torch.bool)
        kept[order[:number]] = True
        return kept


def attach(encoder: SpeechEncoder, units: Sequence[str] = ("conv", "head", "ffn")) -> None:
    """Put gates on all units of the named kinds.

    Raises:
        SkillError: an unknown kind, or `conv` where every convolution has a layer norm (Large): its
            statistics see channels that a gate closes only later, so no pruned model equals it.
    """
    if unknown := set(units) - set(UNITS):
        raise SkillError(f"no gates for {', '.join(sorted(unknown))}; there are {', '.join(UNITS)}")
    if "conv" in units and encoder.config.conv_norm == "layer":
        raise SkillError(
            "convolutions with layer norms (Large models) cannot be pruned exactly; "
            "leave conv out of the units"
        )
    config = encoder.config
    if "conv" in units:
        for layer, channels in zip(encoder.convolutions, config.conv_channels, strict=True):
            layer.gate = HardConcrete(channels, _CLOSED_AT_START["conv"])
    for block, heads, ffn in zip(encoder.blocks, config.heads, config.ffn, strict=True):
        if "head" in units and heads:
            block.attention.gate = HardConcrete(len(heads), _CLOSED_AT_START["head"])
        if "ffn" in units and ffn:
            block.feed_forward.gate = HardConcrete(ffn, _CLOSED_AT_START["ffn"])
        if "attention_layer" in units:
            block.attention_gate = HardConcrete(1, _CLOSED_AT_START["attention_layer"])
        if "ffn_layer" in units:
            block.ffn_gate = HardConcrete(1, _CLOSED_AT_START["ffn_layer"])
    like = next(encoder.parameters())
    for _, gate in gates_of(encoder):
        gate.to(like).train(encoder.training)


def is_gate(parameter_name: str) -> bool:
    """Whether a parameter of a gated encoder is a gate's log α."""
    return parameter_name.endswith(".log_alpha")


def gates_of(encoder: SpeechEncoder) -> Iterator[tuple[str, HardConcrete]]:
    """All gates with their names."""
    for name, module in encoder.named_modules():
        if isinstance(module, HardConcrete):
            yield name, module


def summary(encoder: SpeechEncoder) -> Mapping[str, float]:
    """The expected number of open gates of every gated module."""
    return {name: float(gate.expected_open().detach()) for name, gate in gates_of(encoder)}
