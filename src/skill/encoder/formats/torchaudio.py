"""Encoders under the names of `torchaudio.models`.

`torchaudio` nests the projection and the transformer in `encoder`, and its WavLM joins the query,
key and value maps in one tensor.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from skill.encoder import EncoderConfig, SpeechEncoder
from skill.encoder.formats.weights import build
from skill.utils.errors import SkillError

_JOINED = ("q_proj", "k_proj", "v_proj")
OLD_WEIGHT_NORM = {"weight_g": "original0", "weight_v": "original1"}


def to_torchaudio(encoder: SpeechEncoder) -> dict[str, Tensor]:
    """The weights for `torchaudio.models.wav2vec2_model`, or `wavlm_model`.

    Raises:
        SkillError: the encoder is pruned: `torchaudio` has one width for all layers.
    """
    config = encoder.config
    if config.conv_masked or len({len(h) for h in config.heads} | {config.total_heads}) > 1:
        raise SkillError("a pruned encoder has no form in torchaudio")
    state = {}
    for name, value in encoder.state_dict().items():
        name = re.sub(r"^(feature_projection\.)", r"encoder.\1", name)
        name = re.sub(r"^encoder\.(?!feature_projection)", "encoder.transformer.", name)
        if config.family == "wavlm":
            name = name.replace("attention.out_proj", "attention.attention.out_proj")
        state[name] = value
    if config.family == "wavlm":
        for number in range(config.num_blocks):
            prefix = f"encoder.transformer.layers.{number}.attention."
            for kind in ("weight", "bias"):
                parts = [state.pop(f"{prefix}{name}.{kind}") for name in _JOINED]
                state[f"{prefix}attention.in_proj_{kind}"] = torch.cat(parts)
    return state


def from_torchaudio(config: EncoderConfig, state: Mapping[str, Tensor]) -> SpeechEncoder:
    """An encoder with the weights of a model of `torchaudio.models`.

    Raises:
        SkillError: a tensor is missing, superfluous or of another shape; the message names it.
    """
    return build(config, skill_names(state), Path("torchaudio model"))


def skill_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors named by `torchaudio`, or by DPHuBERT after it, under this project's names."""
    renamed = {}
    for name, value in state.items():
        name = re.sub(r"^encoder\.(transformer\.|(?=feature_projection\.))", "", name)
        if not name.startswith(("feature_extractor.", "feature_projection.")):
            name = f"encoder.{name}"
        name = name.replace("attention.attention.", "attention.")
        for old, new in OLD_WEIGHT_NORM.items():
            name = name.replace(f"conv.{old}", f"conv.parametrizations.weight.{new}")
        joined = re.fullmatch(r"(.*\.attention\.)in_proj_(weight|bias)", name)
        if joined:
            for part, tensor in zip(_JOINED, value.chunk(3), strict=True):
                renamed[f"{joined[1]}{part}.{joined[2]}"] = tensor
        else:
            renamed[name] = value
    return renamed
