"""Hard-concrete gates on an encoder's units, its expected size, and the sparsity target.

A gate z in [0, 1] is a stretched, clamped binary concrete variable (Louizos et al. 2018,
arXiv:1712.01312), with DPHuBERT's constants (Peng et al. 2023, arXiv:2305.17651):

    u ~ U(0, 1),  s = σ((log u − log(1 − u) + log α) / β),  z = clamp(1.2 s − 0.1, 0, 1),  β = 2/3
    P(z > 0) = σ(log α − β log(0.1 / 1.1))

In evaluation a module with n gates and expected number e of open ones closes the round(n − e) least
likely ones; the others have the value σ(0.8 log α / β).

Axes: C channels, H heads, F feed-forward units.

Sizes of the Base models (all gates open):

| | HuBERT | WavLM |
|---|---|---|
| `transformers` | 94,371,712 | 94,381,936 |
| without the mask embedding (768), which distillation does not use | 94,370,944 | 94,381,168 |
| with a mask per channel of the last convolution (512), as DPHuBERT | 94,371,456 | 94,381,680 |

A pruned model holds one vector more (`FeatureProjection.removed`, 768 numbers at Base size).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

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
    """A vector of gates. `kept` [n] overrides which are open in evaluation (see `select`)."""

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


def full_size(encoder: SpeechEncoder) -> int:
    """Parameters of an ungated, unpruned encoder in DPHuBERT's count (table above)."""
    gates = sum(gate.log_alpha.numel() for _, gate in gates_of(encoder))
    masks = 0 if encoder.config.conv_masked else encoder.config.conv_channels[-1]
    return encoder.num_parameters() - gates + masks


def expected_size(encoder: SpeechEncoder) -> Tensor:
    """The expected number of parameters, differentiable, in DPHuBERT's count.

    Products of expectations, as in DPHuBERT's code: a convolution counts E[in] E[out] k.
    """
    saved = _saved(encoder, lambda gate: gate.expected_open().double().cpu())
    return torch.as_tensor(full_size(encoder) - saved, dtype=torch.float64)


def _saved(encoder: SpeechEncoder, count: Callable[[HardConcrete], Any]) -> Any:
    """How many parameters go when `count(gate)` units of each gated module stay."""
    config = encoder.config

    def left(gate: nn.Module | None, full: int) -> Any:
        return full if gate is None else count(gate)  # type: ignore[arg-type]

    saved: Any = 0.0
    inputs: Any = 1
    full_inputs = 1
    for layer, full, kernel in zip(
        encoder.convolutions,
        config.conv_channels,
        config.conv_kernels,
        strict=True,
    ):
        outputs = left(layer.gate, full)
        extra = config.conv_bias + (2 if layer.norm else 0)
        saved += full * (full_inputs * kernel + extra) - outputs * (inputs * kernel + extra)
        inputs, full_inputs = outputs, full
    norm = 2 if config.projection_norm else 0
    saved += (full_inputs - inputs) * (norm + config.width + 1)  # 1: its mask
    head = config.head_width * (4 * config.width + 3) + (config.family == "wavlm")
    unit = 2 * config.width + 1
    for block, heads, ffn in zip(encoder.blocks, config.heads, config.ffn, strict=True):
        kept = left(block.attention.gate, len(heads)) * left(block.attention_gate, 1)
        saved += (len(heads) - kept) * head
        kept = left(block.feed_forward.gate, ffn) * left(block.ffn_gate, 1)
        saved += (ffn - kept) * unit
    return saved


def reachable_sparsity(encoder: SpeechEncoder) -> float:
    """The sparsity with every gate closed but one channel per convolution."""

    convolutions = {id(layer.gate) for layer in encoder.convolutions}
    return _saved(encoder, lambda gate: id(gate) in convolutions) / full_size(encoder)


class SparsityTarget(nn.Module):
    """The augmented Lagrangian λ1 (ŝ − s) + λ2 (ŝ − s)², with a target s that rises from 0.

    ŝ is the expected sparsity, relative to the encoder that this was made for, also when units of
    it have been removed since (`skill.distillation.compaction`). The λ start at 0 and ascend (Wang
    et al. 2020, arXiv:1910.04732)."""

    def __init__(self, encoder: SpeechEncoder, sparsity: float, ramp: int) -> None:
        """`ramp`: steps over which the target rises linearly to `sparsity`.

        Raises:
            SkillError: the gates cannot reach `sparsity`.
        """
        super().__init__()
        limit = reachable_sparsity(encoder)
        if sparsity > limit:
            raise SkillError(
                f"a sparsity of {sparsity} is out of reach: with all gates closed it is {limit:.4f}"
            )
        self.sparsity, self.ramp, self.full = sparsity, ramp, full_size(encoder)
        self.lambda1 = nn.Parameter(torch.zeros(()))
        self.lambda2 = nn.Parameter(torch.zeros(()))

    def target(self, step: int) -> float:
        """The target at a step."""
        return self.sparsity * min(1.0, step / self.ramp) if self.ramp else self.sparsity

    def forward(self, encoder: SpeechEncoder, step: int) -> tuple[Tensor, Tensor]:
        """The penalty and the expected sparsity."""
        device = self.lambda1.device
        sparsity = (1 - expected_size(encoder) / self.full).float().to(device)
        gap = sparsity - self.target(step)
        return self.lambda1 * gap + self.lambda2 * gap.square(), sparsity

    def figures(self, step: int) -> dict[str, Tensor]:
        """What the curve shows."""
        return {
            "target_sparsity": torch.tensor(self.target(step)),
            "lambda1": self.lambda1.detach(),
            "lambda2": self.lambda2.detach(),
        }


def select(encoder: SpeechEncoder, sparsity: float, full: int | None = None) -> None:
    """Decide which gates stay open, so that the physical size meets the target globally.

    `full`: the size that `sparsity` refers to (none: this encoder's).

    Each module first keeps as many gates as it expects to be open. Then, over the whole model, the
    least likely open gates are closed (or the most likely closed ones opened) as long as that
    brings the size nearer to (1 - sparsity) x full size. Every convolution keeps a channel.
    """
    whole = full_size(encoder)
    goal = (1 - sparsity) * (whole if full is None else full)
    extra = encoder.config.width if _conv_gated(encoder) and not encoder.config.conv_masked else 0
    chosen = {gate: gate.chosen() for _, gate in gates_of(encoder)}
    convolutions = {id(layer.gate) for layer in encoder.convolutions}
    for gate, kept in chosen.items():
        if id(gate) in convolutions and not kept.any():
            kept[gate.log_alpha.argmax()] = True
    counts = {gate: int(kept.sum()) for gate, kept in chosen.items()}

    def size() -> float:
        return whole - float(_saved(encoder, lambda gate: counts[gate])) + extra

    ascending = sorted(
        (value, place, index)
        for place, gate in enumerate(chosen)
        for index, value in enumerate(gate.log_alpha.tolist())
    )
    gates = list(chosen)
    now, before = size(), math.inf
    while abs(now - goal) < before:
        before = abs(now - goal)
        closing = now > goal
        for _, place, index in ascending if closing else reversed(ascending):
            if abs(now - goal) < 1e-4 * goal:
                break
            gate = gates[place]
            last = closing and id(gate) in convolutions and counts[gate] == 1
            if bool(chosen[gate][index]) != closing or last:
                continue
            counts[gate] += -1 if closing else 1
            then = size()
            if abs(then - goal) < abs(now - goal):
                chosen[gate][index] = not closing
                now = then
            else:
                counts[gate] -= -1 if closing else 1
    for gate, kept in chosen.items():
        gate.kept = kept


def _conv_gated(encoder: SpeechEncoder) -> bool:
    return any(layer.gate is not None for layer in encoder.convolutions)


def summary(encoder: SpeechEncoder) -> Mapping[str, float]:
    """The expected number of open gates of every gated module."""
    return {name: float(gate.expected_open().detach()) for name, gate in gates_of(encoder)}
