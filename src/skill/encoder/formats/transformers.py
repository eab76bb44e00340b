"""Folders of `transformers`: their configuration and their tensors, under this project's names."""

import json
import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from skill.encoder.config import EncoderConfig
from skill.utils.errors import SkillError

_FAMILIES = {"wav2vec2": "wav2vec2", "hubert": "hubert", "wavlm": "wavlm"}
# Parts of published checkpoints that serve pretraining or fine-tuning, not the encoder.
_NOT_ENCODER = re.compile(
    r"^(masked_spec_embed$|quantizer\.|project_q\.|project_hid\.|lm_head\.|label_embs_concat$"
    r"|final_proj\.|classifier\.|projector\.|layer_weights$|adapter\."
    r"|tdnn\.|objective\.)"
)
_OLD_WEIGHT_NORM = {
    ".weight_g": ".parametrizations.weight.original0",
    ".weight_v": ".parametrizations.weight.original1",
}


def encoder_config(written: dict[str, Any], path: Path) -> EncoderConfig:
    """The architecture that a `config.json` of `transformers` describes."""
    family = _FAMILIES.get(str(written.get("model_type")))
    if family is None:
        raise SkillError(
            f"{path}: model_type is {written.get('model_type')!r}, none of {', '.join(_FAMILIES)}"
        )
    if (activation := written.get("hidden_act", "gelu")) != "gelu":
        raise SkillError(f"{path}: hidden_act is {activation!r}; this encoder has GELU only")
    try:
        blocks, heads = written["num_hidden_layers"], written["num_attention_heads"]
        return EncoderConfig(
            family=family,  # type: ignore[arg-type]
            width=written["hidden_size"],
            conv_channels=tuple(written["conv_dim"]),
            conv_full_width=written["conv_dim"][-1],
            heads=(tuple(range(heads)),) * blocks,
            total_heads=heads,
            ffn=(written["intermediate_size"],) * blocks,
            conv_kernels=tuple(written["conv_kernel"]),
            conv_strides=tuple(written["conv_stride"]),
            conv_bias=written.get("conv_bias", False),
            conv_norm=written.get("feat_extract_norm", "group"),
            projection_norm=written.get("feat_proj_layer_norm", True),
            pos_conv_kernel=written.get("num_conv_pos_embeddings", 128),
            pos_conv_groups=written.get("num_conv_pos_embedding_groups", 16),
            pre_norm=written.get("do_stable_layer_norm", False),
            relative_buckets=written.get("num_buckets", 320) if family == "wavlm" else 0,
            relative_distance=written.get("max_bucket_distance", 800) if family == "wavlm" else 0,
            normalize_waveform=written.get("feat_extract_norm") == "layer" and _normalizes(path),
            layer_norm_eps=written.get("layer_norm_eps", 1e-5),
            projection_dropout=written.get("feat_proj_dropout", 0.0),
            attention_dropout=written.get("attention_dropout", 0.1),
            activation_dropout=written.get("activation_dropout", 0.1),
            hidden_dropout=written.get("hidden_dropout", 0.1),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SkillError(f"{path}: the configuration lacks or misstates {error}") from error


def _normalizes(folder: Path) -> bool:
    """Whether the folder's feature extractor normalises waveforms; no file: no.

    Asked of models with layer norms only: the Base models were trained on plain waveforms, whatever
    their folders' extractors say.
    """
    path = folder / "preprocessor_config.json"
    return bool(read_config(path).get("do_normalize", False)) if path.exists() else False


def encoder_tensors(folder: Path) -> dict[str, Tensor]:
    """A `transformers` checkpoint under this project's names."""
    safe, pickled = folder / "model.safetensors", folder / "pytorch_model.bin"
    try:
        if safe.exists():
            tensors = load_file(safe)
        elif pickled.exists():
            tensors = torch.load(pickled, map_location="cpu", weights_only=True)
        else:
            raise SkillError(f"{folder}: neither model.safetensors nor pytorch_model.bin is there")
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise SkillError(f"{folder}: weights that cannot be read: {error}") from error
    renamed = {}
    for name, tensor in tensors.items():
        name = re.sub(r"^(wav2vec2|hubert|wavlm)\.", "", name)
        for old, new in _OLD_WEIGHT_NORM.items():
            if name.endswith(old):
                name = name.removesuffix(old) + new
        if not _NOT_ENCODER.match(name):
            renamed[name] = tensor
    return renamed


def read_config(path: Path) -> dict[str, Any]:
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SkillError(f"{path}: no readable configuration: {error}") from error
    if not isinstance(written, dict):
        raise SkillError(f"{path}: no configuration but {type(written).__name__}")
    return written
