"""From gates to a physically smaller encoder with the same outputs in evaluation mode.

A unit's gate is multiplied into the weights that read the unit, and units that are closed are cut
out: heads and feed-forward units by the maps that follow them, a convolution's channels by the next
convolution. The last convolution is followed by a layer norm over all channels, whose statistics a
closed channel enters as 0: `FeatureProjection` keeps what it contributes.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from skill.encoder import Block, SpeechEncoder
from skill.errors import SkillError
from skill.gates import HardConcrete


@torch.no_grad()
def prune(encoder: SpeechEncoder) -> SpeechEncoder:
    """A copy of a gated encoder, without gates and without what they close.

    Its outputs are those of `encoder.eval()` up to rounding.

    Raises:
        SkillError: a convolution has no channel left.
    """
    config = encoder.config
    channels = [
        _mask(layer.gate, count, encoder)
        for layer, count in zip(encoder.convolutions, config.conv_channels, strict=True)
    ]
    for number, mask in enumerate(channels):
        if not mask.any():
            raise SkillError(f"convolution {number} has no channel left")
    heads, units = [], []
    for block, numbers, ffn in zip(encoder.blocks, config.heads, config.ffn, strict=True):
        mask = _head_mask(block, len(numbers), encoder)
        heads.append(tuple(n for n, value in zip(numbers, mask.tolist(), strict=True) if value))
        units.append(int((_unit_mask(block, ffn, encoder) != 0).sum()))
    gated = any(layer.gate is not None for layer in encoder.convolutions)
    student = SpeechEncoder(
        replace(
            config,
            conv_channels=tuple(int((mask != 0).sum()) for mask in channels),
            conv_masked=config.conv_masked or gated,
            heads=tuple(heads),
            ffn=tuple(units),
        )
    ).to(next(encoder.parameters()))
    state = {name: value for name, value in encoder.state_dict().items() if "log_alpha" not in name}
    _prune_convolutions(state, encoder, channels)
    for number, block in enumerate(encoder.blocks):
        _prune_block(state, f"encoder.layers.{number}.", block, encoder)
    student.load_state_dict(state)
    student.exact_padding = encoder.exact_padding
    return student.train(encoder.training)


def _mask(gate: nn.Module | None, count: int, encoder: SpeechEncoder) -> Tensor:
    """The gate's values in evaluation, ones where there is none."""
    like = next(encoder.parameters())
    return gate.values().to(like) if isinstance(gate, HardConcrete) else like.new_ones(count)


def _head_mask(block: Block, count: int, encoder: SpeechEncoder) -> Tensor:
    whole = _mask(block.attention_gate, 1, encoder)
    return _mask(block.attention.gate, count, encoder) * (whole != 0)


def _unit_mask(block: Block, count: int, encoder: SpeechEncoder) -> Tensor:
    whole = _mask(block.ffn_gate, 1, encoder)
    return _mask(block.feed_forward.gate, count, encoder) * (whole != 0)


def _prune_convolutions(
    state: dict[str, Tensor], encoder: SpeechEncoder, channels: list[Tensor]
) -> None:
    before = channels[0].new_ones(1)
    for number, mask in enumerate(channels):
        prefix = f"feature_extractor.conv_layers.{number}."
        left, came = mask != 0, before != 0
        weight = state[prefix + "conv.weight"][left][:, came]
        state[prefix + "conv.weight"] = weight * before[came][:, None]
        for name in ("conv.bias", "layer_norm.weight", "layer_norm.bias"):
            if prefix + name in state:
                state[prefix + name] = state[prefix + name][left]
        before = mask
    if not encoder.config.conv_masked and all(layer.gate is None for layer in encoder.convolutions):
        return
    prefix = "feature_projection."
    left = before != 0
    weight = state[prefix + "projection.weight"]
    removed = state.get(prefix + "removed", weight.new_zeros(len(weight)))
    if prefix + "layer_norm.weight" in state:
        scales, shifts = state[prefix + "layer_norm.weight"], state[prefix + "layer_norm.bias"]
        gone = weight[:, ~left]
        state[prefix + "removed"] = removed + gone @ scales[~left]
        state[prefix + "projection.bias"] = state[prefix + "projection.bias"] + gone @ shifts[~left]
        state[prefix + "layer_norm.weight"] = scales[left]
        state[prefix + "layer_norm.bias"] = shifts[left]
    else:
        state[prefix + "removed"] = removed
    state[prefix + "projection.weight"] = weight[:, left]
    scale = state.get(prefix + "scale", torch.ones_like(before))
    state[prefix + "scale"] = (scale * before)[left]


def _prune_block(
    state: dict[str, Tensor], prefix: str, block: Block, encoder: SpeechEncoder
) -> None:
    attention = block.attention
    mask = _head_mask(block, len(attention.heads), encoder)
    rows = (mask != 0).repeat_interleave(attention.head_width)
    for name in ("q_proj", "k_proj", "v_proj"):
        for kind in ("weight", "bias"):
            key = f"{prefix}attention.{name}.{kind}"
            state[key] = state[key][rows]
    whole = _mask(block.attention_gate, 1, encoder)
    key = prefix + "attention.out_proj."
    columns = mask.repeat_interleave(attention.head_width)[rows]
    state[key + "weight"] = state[key + "weight"][:, rows] * columns * whole
    state[key + "bias"] = state[key + "bias"] * whole
    if attention.has_bias:
        key = prefix + "attention.gru_rel_pos_const"
        state[key] = state[key][:, mask != 0]
    units = _unit_mask(block, block.feed_forward.output_dense.in_features, encoder)
    left, whole = units != 0, _mask(block.ffn_gate, 1, encoder)
    for kind in ("weight", "bias"):
        key = f"{prefix}feed_forward.intermediate_dense.{kind}"
        state[key] = state[key][left]
    key = prefix + "feed_forward.output_dense."
    state[key + "weight"] = state[key + "weight"][:, left] * units[left] * whole
    state[key + "bias"] = state[key + "bias"] * whole
