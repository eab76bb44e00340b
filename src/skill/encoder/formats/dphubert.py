"""DPHuBERT's files: its released students are read, and encoders are written for its code.

The files (`{"config", "state_dict"}`) have the names of `torchaudio` for models of uneven widths;
`dummy_weight` there is `FeatureProjection.scale` here. Its pruned models norm over the channels
that are left, so they are read with that full width; what they lack of this project's encoders is
written as parts that add the same (`_expressible`).
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skill.encoder import EncoderConfig, SpeechEncoder
from skill.encoder.config import all_heads
from skill.encoder.formats.torchaudio import OLD_WEIGHT_NORM, skill_names
from skill.encoder.formats.weights import build, state_dict, unpickle
from skill.utils.errors import SkillError
from skill.utils.files import write_state


def is_dphubert(content: Mapping[str, Any]) -> bool:
    """Whether a file of torch has DPHuBERT's layout."""
    config = content.get("config")
    return isinstance(config, dict) and "extractor_mode" in config and "state_dict" in content


def read_dphubert(path: str | PathLike[str]) -> SpeechEncoder:
    """A teacher or student in a file of DPHuBERT's code; nothing in it is executed.

    Raises:
        SkillError: the file cannot be read, its configuration lacks a key, or a tensor is wrong.
    """
    content = unpickle(Path(path))
    try:
        config = _dphubert_config(content["config"])
        state = skill_names(state_dict(content, Path(path)))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise SkillError(f"{path}: no DPHuBERT checkpoint: {error} is missing or wrong") from error
    state["feature_projection.scale"] = state.pop(
        "feature_extractor.dummy_weight", torch.ones(config.conv_channels[-1])
    )
    state["feature_projection.removed"] = torch.zeros(config.width)
    if config.family == "wavlm":
        _keep_remaining_heads(state, config)
    with torch.device("meta"):
        shapes = SpeechEncoder(config).state_dict()
    for name, tensor in shapes.items():
        block = re.match(r"encoder\.layers\.(\d+)\.(attention|feed_forward)\.", name)
        # A sublayer that DPHuBERT removed whole adds nothing, not even its bias; and without the
        # first block's attention there is no position bias anywhere, for its table is gone.
        if block and not (config.heads if block[2] == "attention" else config.ffn)[int(block[1])]:
            state[name] = torch.zeros(tensor.shape)
    return build(config, state, Path(path))


@torch.no_grad()
def write_dphubert(encoder: SpeechEncoder, path: str | PathLike[str]) -> None:
    """Write the `{"config", "state_dict"}` that DPHuBERT's code loads, with the same states.

    DPHuBERT has no bias where a sublayer is gone and no norm over channels that are gone. Where
    these matter, the file has a head or unit with weights 0, or the last convolution's channels
    with weights 0, and so more parameters than the encoder.

    Raises:
        SkillError: the encoder has gates, no norm in its projection, or an epsilon other than 1e-5.
    """
    config = encoder.config
    if any("log_alpha" in name for name, _ in encoder.named_parameters()):
        raise SkillError("an encoder with gates has no form in DPHuBERT's layout: prune it first")
    if not config.projection_norm:
        raise SkillError("DPHuBERT's layout has a layer norm in the projection, this encoder none")
    if config.layer_norm_eps != 1e-5:
        raise SkillError(f"DPHuBERT's layer norms have epsilon 1e-5, not {config.layer_norm_eps}")
    config, tensors = _expressible(encoder)
    state = {}
    for name, value in tensors.items():
        block = re.match(r"encoder\.layers\.(\d+)\.(attention|feed_forward)\.", name)
        if block:
            heads, units = config.heads[int(block[1])], config.ffn[int(block[1])]
            if not (heads if block[2] == "attention" else units):
                continue
            if name.endswith("gru_rel_pos_const"):
                every_head = torch.ones(1, config.total_heads, 1, 1)
                every_head[:, list(heads)] = value
                value = every_head
        if name == "feature_projection.removed":
            continue
        name = re.sub(r"^feature_projection\.scale$", "feature_extractor.dummy_weight", name)
        name = re.sub(r"^encoder\.", "encoder.transformer.", name)
        name = re.sub(r"^feature_projection\.", "encoder.feature_projection.", name)
        for old, new in OLD_WEIGHT_NORM.items():
            name = name.replace(f"parametrizations.weight.{new}", old)
        state[name] = value.detach().cpu().float().clone()
    write_state(path, {"config": _written_config(config), "state_dict": state})


def _expressible(encoder: SpeechEncoder) -> tuple[EncoderConfig, dict[str, Tensor]]:
    """The encoder with parts added until DPHuBERT's layout says the same.

    A sublayer that is only a bias gets one head or unit of weights 0; so does the first block's
    attention in WavLM, which has the table of position values. Channels that the projection's norm
    counts but the last convolution lacks come back as zeros, and one of them carries `removed`.
    """
    config, state = encoder.config, dict(encoder.state_dict())
    heads, ffn = list(config.heads), list(config.ffn)
    for number in range(config.num_blocks):
        prefix = f"encoder.layers.{number}."
        table = number == 0 and config.relative_buckets > 0
        if not heads[number] and (table or state[f"{prefix}attention.out_proj.bias"].any()):
            heads[number] = (0,)
        if not ffn[number] and state[f"{prefix}feed_forward.output_dense.bias"].any():
            ffn[number] = 1
    left = config.conv_channels[-1]
    absent = config.conv_full_width - left if config.conv_masked else 0
    channels = (*config.conv_channels[:-1], left + absent)
    config = replace(
        config,
        heads=tuple(heads),
        ffn=tuple(ffn),
        conv_channels=channels,
        conv_full_width=channels[-1],
        conv_masked=True,
    )
    state.setdefault("feature_projection.scale", torch.ones(left))
    state.setdefault("feature_projection.removed", torch.zeros(config.width))
    like = {name: torch.zeros_like(t) for name, t in SpeechEncoder(config).state_dict().items()}
    for name, value in state.items():
        like[name][tuple(slice(0, size) for size in value.shape)] = value
    if absent:
        like["feature_projection.layer_norm.weight"][left] = 1.0
        like["feature_projection.projection.weight"][:, left] = state["feature_projection.removed"]
    return config, like


def _dphubert_config(settings: Mapping[str, Any]) -> EncoderConfig:
    """The architecture in DPHuBERT's words. Widths of removed sublayers become 0."""
    channels, kernels, strides = zip(*settings["extractor_conv_layer_config"], strict=True)
    width = settings["encoder_embed_dim"]
    wavlm = "encoder_remaining_heads" in settings
    if wavlm:
        total = settings["encoder_total_num_heads"][0]
        heads = [tuple(left) for left in settings["encoder_remaining_heads"]]
    else:
        total = width // settings["encoder_head_dim"]
        heads = [all_heads(number) for number in settings["encoder_num_heads"]]
    attends, feeds = settings["encoder_use_attention"], settings["encoder_use_feed_forward"]
    units = settings["encoder_ff_interm_features"]
    layered = settings["extractor_mode"] == "layer_norm"
    return EncoderConfig(
        family="wavlm" if wavlm else "hubert",
        width=width,
        conv_channels=channels,
        conv_full_width=channels[-1],
        heads=tuple(h if on else () for h, on in zip(heads, attends, strict=True)),
        total_heads=total,
        ffn=tuple(n if on else 0 for n, on in zip(units, feeds, strict=True)),
        conv_kernels=kernels,
        conv_strides=strides,
        conv_bias=settings["extractor_conv_bias"],
        conv_norm="layer" if layered else "group",
        conv_masked=True,
        pos_conv_kernel=settings["encoder_pos_conv_kernel"],
        pos_conv_groups=settings["encoder_pos_conv_groups"],
        pre_norm=settings["encoder_layer_norm_first"],
        relative_buckets=settings["encoder_num_buckets"] if wavlm else 0,
        relative_distance=settings["encoder_max_distance"] if wavlm else 0,
        normalize_waveform=settings["normalize_waveform"],
        projection_dropout=settings["encoder_projection_dropout"],
        attention_dropout=settings["encoder_attention_dropout"],
        activation_dropout=settings["encoder_ff_interm_dropout"],
        hidden_dropout=settings["encoder_dropout"],
    )


def _keep_remaining_heads(state: dict[str, Tensor], config: EncoderConfig) -> None:
    """DPHuBERT keeps the position gates of all heads."""
    for number, left in enumerate(config.heads):
        key = f"encoder.layers.{number}.attention.gru_rel_pos_const"
        # A table of another shape stays as it is, and is refused for its shape.
        if left and key in state and state[key].shape[1:2] == (config.total_heads,):
            state[key] = state[key][:, list(left)]


def _written_config(config: EncoderConfig) -> dict[str, Any]:
    """`_dphubert_config` the other way round, complete for DPHuBERT's `wav2vec2_model`."""
    blocks = range(config.num_blocks)
    layers = zip(config.conv_channels, config.conv_kernels, config.conv_strides, strict=True)
    settings: dict[str, Any] = {
        "extractor_mode": f"{config.conv_norm}_norm",
        "extractor_conv_layer_config": list(layers),
        "extractor_conv_bias": config.conv_bias,
        "encoder_embed_dim": config.width,
        "encoder_projection_dropout": config.projection_dropout,
        "encoder_pos_conv_kernel": config.pos_conv_kernel,
        "encoder_pos_conv_groups": config.pos_conv_groups,
        "encoder_num_layers": config.num_blocks,
        "encoder_use_attention": [bool(config.heads[number]) for number in blocks],
        "encoder_use_feed_forward": [config.ffn[number] > 0 for number in blocks],
        "encoder_attention_dropout": config.attention_dropout,
        "encoder_ff_interm_features": list(config.ffn),
        "encoder_ff_interm_dropout": config.activation_dropout,
        "encoder_dropout": config.hidden_dropout,
        "encoder_layer_norm_first": config.pre_norm,
        "encoder_layer_drop": 0.0,
        "aux_num_out": None,
        "normalize_waveform": config.normalize_waveform,
    }
    if config.family == "wavlm":
        return settings | {
            "encoder_total_num_heads": [config.total_heads] * config.num_blocks,
            "encoder_remaining_heads": [list(heads) for heads in config.heads],
            "encoder_num_buckets": config.relative_buckets,
            "encoder_max_distance": config.relative_distance,
        }
    return settings | {
        "encoder_num_heads": [len(heads) for heads in config.heads],
        "encoder_head_dim": config.head_width,
    }
