"""From gates to a physically smaller encoder with the same outputs in evaluation mode.

A unit's gate is multiplied into the weights that read the unit (`prune`), and units that are closed
are cut out (`cut`): heads and feed-forward units by the maps that follow them, a convolution's
channels by the next convolution. The last convolution is followed by a layer norm over all
channels, whose statistics a closed channel enters as 0: `FeatureProjection` keeps what it
contributes (`settle`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from skill.distillation.gates import HardConcrete
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.utils.errors import SkillError

_PROJECTION = "feature_projection."


@dataclass(frozen=True)
class Kept:
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
            conv_channels=tuple(int(left.sum()) for left in self.channels),
            conv_masked=config.conv_masked or self.masked,
            heads=tuple(
                tuple(n for n, stays in zip(numbers, left.tolist(), strict=True) if stays)
                for numbers, left in zip(config.heads, self.heads, strict=True)
            ),
            ffn=tuple(int(left.sum()) for left in self.units),
        )


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
    whole = [
        (_values(block.attention_gate, 1, encoder), _values(block.ffn_gate, 1, encoder))
        for block in encoder.blocks
    ]
    heads = [
        _values(block.attention.gate, len(numbers), encoder) * (attention != 0)
        for block, numbers, (attention, _) in zip(encoder.blocks, config.heads, whole, strict=True)
    ]
    units = [
        _values(block.feed_forward.gate, count, encoder) * (ffn != 0)
        for block, count, (_, ffn) in zip(encoder.blocks, config.ffn, whole, strict=True)
    ]
    kept = Kept(
        [values != 0 for values in channels],
        [values != 0 for values in heads],
        [values != 0 for values in units],
        masked=any(layer.gate is not None for layer in encoder.convolutions),
    )
    state = {name: value for name, value in encoder.state_dict().items() if "log_alpha" not in name}
    state |= settled(state, kept, encoder)
    for number, values in enumerate(channels[:-1]):
        key = f"feature_extractor.conv_layers.{number + 1}.conv.weight"
        state[key] = state[key] * values[:, None]
    if _PROJECTION + "scale" in state:
        state[_PROJECTION + "scale"] = state[_PROJECTION + "scale"] * channels[-1]
    for number, (attention, ffn) in enumerate(whole):
        prefix = f"encoder.layers.{number}."
        columns = heads[number].repeat_interleave(config.head_width)
        for key, values, gate in (
            ("attention.out_proj.", columns, attention),
            ("feed_forward.output_dense.", units[number], ffn),
        ):
            state[prefix + key + "weight"] = state[prefix + key + "weight"] * values * gate
            state[prefix + key + "bias"] = state[prefix + key + "bias"] * gate
    student = SpeechEncoder(kept.config(config)).to(next(encoder.parameters()))
    student.load_state_dict(cut(state, kept, config.head_width))
    student.exact_padding = encoder.exact_padding
    return student.train(encoder.training)


def _values(gate: nn.Module | None, count: int, encoder: SpeechEncoder) -> Tensor:
    """The gate's values in evaluation, ones where there is none."""
    like = next(encoder.parameters())
    return gate.values().to(like) if isinstance(gate, HardConcrete) else like.new_ones(count)


@torch.no_grad()
def settled(state: Mapping[str, Tensor], kept: Kept, encoder: SpeechEncoder) -> dict[str, Tensor]:
    """What the projection has to carry for the channels that `kept` leaves out, before the cut.

    Returns:
        The tensors of `state` that change: `removed` [D], `scale` [C], and the bias [D].
    """
    if not (encoder.config.conv_masked or kept.masked):
        return {}
    weight, gone = state[_PROJECTION + "projection.weight"], ~kept.channels[-1]
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


def cut(state: Mapping[str, Tensor], kept: Kept, head_width: int) -> dict[str, Tensor]:
    """Rows and columns of what stays, from an encoder's tensors or others named and shaped alike.

    The gates' log α are cut along; one of which nothing is left is left out. Names that `state`
    lacks are passed over: an optimiser's moments may be there for some parameters only.
    """
    result = dict(state)

    def keep(name: str, rows: Tensor | None, columns: Tensor | None = None) -> None:
        if name in result:
            value = result[name]
            value = value if rows is None else value[rows]
            result[name] = value if columns is None else value[:, columns]

    came = None
    for number, left in enumerate(kept.channels):
        prefix = f"feature_extractor.conv_layers.{number}."
        keep(prefix + "conv.weight", left, came)
        for name in ("conv.bias", "layer_norm.weight", "layer_norm.bias", "gate.log_alpha"):
            keep(prefix + name, left)
        came = left
    for name in ("layer_norm.weight", "layer_norm.bias", "scale"):
        keep(_PROJECTION + name, came)
    keep(_PROJECTION + "projection.weight", None, came)
    for number, (heads, units) in enumerate(zip(kept.heads, kept.units, strict=True)):
        prefix, rows = f"encoder.layers.{number}.", heads.repeat_interleave(head_width)
        for name in ("q_proj", "k_proj", "v_proj"):
            keep(f"{prefix}attention.{name}.weight", rows)
            keep(f"{prefix}attention.{name}.bias", rows)
        keep(prefix + "attention.out_proj.weight", None, rows)
        keep(prefix + "attention.gru_rel_pos_const", None, heads)
        keep(prefix + "attention.gate.log_alpha", heads)
        keep(prefix + "feed_forward.intermediate_dense.weight", units)
        keep(prefix + "feed_forward.intermediate_dense.bias", units)
        keep(prefix + "feed_forward.output_dense.weight", None, units)
        keep(prefix + "feed_forward.gate.log_alpha", units)
    return {
        name: value
        for name, value in result.items()
        if value.numel() or not name.endswith(".log_alpha")
    }
