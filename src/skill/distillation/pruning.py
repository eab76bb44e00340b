"""From gates to a physically smaller encoder with the same outputs in evaluation mode.

Which gates stay open is decided first, so that the size meets the target (`select`). Then a unit's
gate is multiplied into the weights that read the unit (`prune`), and closed units are left out
(`slice_state_dict`): heads and feed-forward units by the maps that follow them, a convolution's
channels by the next convolution. The last convolution is followed by a layer norm over all
channels, whose statistics a closed channel enters as 0: `FeatureProjection` keeps what it
contributes (`fold_removed_channels`).

Axes: C channels, H heads, F feed-forward units, D width.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from skill.distillation.gates import HardConcrete, gates_of
from skill.distillation.sparsity import full_size, removed_parameters
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.utils.errors import SkillError

_PROJECTION = "feature_projection."


@dataclass(frozen=True)
class UnitMask:
    """Which units stay, boolean: channels [C] per convolution, heads [H] and units [F] per block.

    `masked`: the convolutions lose channels or may lose some (`EncoderConfig.conv_masked`).
    """

    channels: list[Tensor]
    heads: list[Tensor]
    units: list[Tensor]
    masked: bool

    def config(self, config: EncoderConfig) -> EncoderConfig:
        """The architecture that is left of `config`."""
        return replace(
            config,
            conv_channels=tuple(int(mask.sum()) for mask in self.channels),
            conv_masked=config.conv_masked or self.masked,
            heads=tuple(
                tuple(n for n, stays in zip(numbers, mask.tolist(), strict=True) if stays)
                for numbers, mask in zip(config.heads, self.heads, strict=True)
            ),
            ffn=tuple(int(mask.sum()) for mask in self.units),
        )


def select(encoder: SpeechEncoder, sparsity: float) -> None:
    """Decide which gates stay open, so that the physical size meets the target globally.

    Each module first keeps as many gates as it expects to be open. Then, over the whole model, the
    least likely open gates are closed (or the most likely closed ones opened) as long as that
    brings the size nearer to (1 - sparsity) x full size. Every convolution keeps a channel.
    """
    full = full_size(encoder)
    goal = (1 - sparsity) * full
    extra = encoder.config.width if _conv_gated(encoder) and not encoder.config.conv_masked else 0
    chosen = {gate: gate.chosen() for _, gate in gates_of(encoder)}
    convolutions = {id(layer.gate) for layer in encoder.convolutions}
    for gate, kept in chosen.items():
        if id(gate) in convolutions and not kept.any():
            kept[gate.log_alpha.argmax()] = True
    counts = {gate: int(kept.sum()) for gate, kept in chosen.items()}

    def size() -> float:
        return full - float(removed_parameters(encoder, lambda gate: counts[gate])) + extra

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


@torch.no_grad()
def prune(encoder: SpeechEncoder) -> SpeechEncoder:
    """A copy of a gated encoder, without gates and without what they close.

    Its outputs are those of `encoder.eval()` up to rounding.

    Raises:
        SkillError: a convolution has no channel left.
    """
    config = encoder.config
    channels = [
        _values(layer.gate, count, encoder)
        for layer, count in zip(encoder.convolutions, config.conv_channels, strict=True)
    ]
    for number, values in enumerate(channels):
        if not values.any():
            raise SkillError(f"convolution {number} has no channel left")
    layers = [
        (_values(block.attention_gate, 1, encoder), _values(block.ffn_gate, 1, encoder))
        for block in encoder.blocks
    ]
    heads = [
        _values(block.attention.gate, len(numbers), encoder) * (attention != 0)
        for block, numbers, (attention, _) in zip(encoder.blocks, config.heads, layers, strict=True)
    ]
    units = [
        _values(block.feed_forward.gate, count, encoder) * (ffn != 0)
        for block, count, (_, ffn) in zip(encoder.blocks, config.ffn, layers, strict=True)
    ]
    mask = UnitMask(
        [values != 0 for values in channels],
        [values != 0 for values in heads],
        [values != 0 for values in units],
        masked=any(layer.gate is not None for layer in encoder.convolutions),
    )
    state = {name: value for name, value in encoder.state_dict().items() if "log_alpha" not in name}
    state |= fold_removed_channels(state, mask)
    for number, values in enumerate(channels[:-1]):
        key = f"feature_extractor.conv_layers.{number + 1}.conv.weight"
        state[key] = state[key] * values[:, None]
    if _PROJECTION + "scale" in state:
        state[_PROJECTION + "scale"] = state[_PROJECTION + "scale"] * channels[-1]
    for number, (attention, ffn) in enumerate(layers):
        prefix = f"encoder.layers.{number}."
        columns = heads[number].repeat_interleave(config.head_width)
        for key, values, gate in (
            ("attention.out_proj.", columns, attention),
            ("feed_forward.output_dense.", units[number], ffn),
        ):
            state[prefix + key + "weight"] = state[prefix + key + "weight"] * values * gate
            state[prefix + key + "bias"] = state[prefix + key + "bias"] * gate
    student = SpeechEncoder(mask.config(config)).to(next(encoder.parameters()))
    student.load_state_dict(slice_state_dict(state, mask, config.head_width))
    student.exact_padding = encoder.exact_padding
    return student.train(encoder.training)


def _values(gate: nn.Module | None, count: int, encoder: SpeechEncoder) -> Tensor:
    """The gate's values in evaluation, ones where there is none."""
    like = next(encoder.parameters())
    return gate.values().to(like) if isinstance(gate, HardConcrete) else like.new_ones(count)


@torch.no_grad()
def fold_removed_channels(state: Mapping[str, Tensor], mask: UnitMask) -> dict[str, Tensor]:
    """What the projection has to carry for the channels that go, before they are left out.

    Returns:
        The tensors of `state` that change: `removed` [D], `scale` [C], and the bias [D].
    """
    if not (mask.masked or _PROJECTION + "scale" in state):
        return {}
    weight, gone = state[_PROJECTION + "projection.weight"], ~mask.channels[-1]
    removed = state.get(_PROJECTION + "removed", weight.new_zeros(len(weight)))
    scale = state.get(_PROJECTION + "scale", weight.new_ones(weight.shape[1]))
    bias = state[_PROJECTION + "projection.bias"]
    if _PROJECTION + "layer_norm.weight" in state:
        removed = removed + weight[:, gone] @ state[_PROJECTION + "layer_norm.weight"][gone]
        bias = bias + weight[:, gone] @ state[_PROJECTION + "layer_norm.bias"][gone]
    return {
        _PROJECTION + "removed": removed,
        _PROJECTION + "scale": scale,
        _PROJECTION + "projection.bias": bias,
    }


def slice_state_dict(
    state: Mapping[str, Tensor], mask: UnitMask, head_width: int
) -> dict[str, Tensor]:
    """The rows and columns of the units that stay, of an encoder's tensors without its gates."""
    result = dict(state)

    def keep(name: str, rows: Tensor | None, columns: Tensor | None = None) -> None:
        if name in result:
            value = result[name]
            value = value if rows is None else value[rows]
            result[name] = value if columns is None else value[:, columns]

    previous = None
    for number, channels in enumerate(mask.channels):
        prefix = f"feature_extractor.conv_layers.{number}."
        keep(prefix + "conv.weight", channels, previous)
        for name in ("conv.bias", "layer_norm.weight", "layer_norm.bias"):
            keep(prefix + name, channels)
        previous = channels
    for name in ("layer_norm.weight", "layer_norm.bias", "scale"):
        keep(_PROJECTION + name, previous)
    keep(_PROJECTION + "projection.weight", None, previous)
    for number, (heads, units) in enumerate(zip(mask.heads, mask.units, strict=True)):
        prefix, rows = f"encoder.layers.{number}.", heads.repeat_interleave(head_width)
        for name in ("q_proj", "k_proj", "v_proj"):
            keep(f"{prefix}attention.{name}.weight", rows)
            keep(f"{prefix}attention.{name}.bias", rows)
        keep(prefix + "attention.out_proj.weight", None, rows)
        keep(prefix + "attention.gru_rel_pos_const", None, heads)
        keep(prefix + "feed_forward.intermediate_dense.weight", units)
        keep(prefix + "feed_forward.intermediate_dense.bias", units)
        keep(prefix + "feed_forward.output_dense.weight", None, units)
    return result
