"""DistilHuBERT's released checkpoints: s3prl's `{"Config", "Distiller"}`, in fairseq's names.

The model (Chang et al. 2022, arXiv:2110.01900) is a HuBERT of few blocks without a layer norm in
front of its projection. The heads that predict the teacher's layers are left out. On the hub the
same model has the layout of `transformers`.
"""

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as shown
from typing import Any

from torch import Tensor

from skill.encoder.config import EncoderConfig, all_heads, per_block
from skill.encoder.formats.transformers import encoder_tensors
from skill.encoder.formats.weights import state_dict
from skill.utils.errors import SkillError

_CONVOLUTIONS = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"
_MOST_LAYERS = 100
_NAMES = {
    r"feature_extractor\.conv_layers\.(\d+)\.0\.": r"feature_extractor.conv_layers.\1.conv.",
    r"feature_extractor\.conv_layers\.(\d+)\.2(\.1)?\.":
        r"feature_extractor.conv_layers.\1.layer_norm.",
    r"post_extract_proj\.": "feature_projection.projection.",
    r"encoder\.pos_conv\.0\.": "encoder.pos_conv_embed.conv.",
    r"encoder\.layers\.(\d+)\.self_attn\.": r"encoder.layers.\1.attention.",
    r"encoder\.layers\.(\d+)\.self_attn_layer_norm\.": r"encoder.layers.\1.layer_norm.",
    r"encoder\.layers\.(\d+)\.fc1\.": r"encoder.layers.\1.feed_forward.intermediate_dense.",
    r"encoder\.layers\.(\d+)\.fc2\.": r"encoder.layers.\1.feed_forward.output_dense.",
}  # fmt: skip


def is_distilhubert(content: Mapping[str, Any]) -> bool:
    """Whether a file of torch has this layout."""
    return "Distiller" in content and isinstance(content.get("Config"), dict)


def read_distilhubert(
    content: Mapping[str, Any], path: Path
) -> tuple[EncoderConfig, dict[str, Tensor]]:
    """The architecture, and the encoder's tensors under this project's names.

    Raises:
        SkillError: a kind of distiller that this encoder does not compute, or a damaged file.
    """
    settings, tensors = content["Config"].get("distiller"), content["Distiller"]
    if not isinstance(settings, dict) or not isinstance(tensors, dict):
        raise SkillError(f"{path}: no DistilHuBERT: Config.distiller or Distiller is no mapping")
    for name, values in {
        "attention_type": ("original",),
        "activation_fn": ("gelu",),
        "task_emb_type": ("expand-last", "self-hidden", "none"),
        "extractor_mode": ("default", "layer_norm"),
    }.items():
        if (value := settings.get(name, values[0])) not in values:
            raise SkillError(f"{path}: {name} is {shown(value)}, which is not computed")
    try:
        layers = _convolutions(settings.get("extractor_conv_feature_layers", _CONVOLUTIONS))
        channels, kernels, strides = zip(*layers, strict=True)
        heads, blocks = settings.get("encoder_attention_heads", 12), settings["encoder_layers"]
        config = EncoderConfig(
            family="hubert",
            width=settings.get("encoder_embed_dim", 768),
            conv_channels=channels,
            conv_full_width=channels[-1],
            heads=per_block(all_heads(heads), blocks),
            total_heads=heads,
            ffn=per_block(settings.get("encoder_ffn_embed_dim", 3072), blocks),
            conv_kernels=kernels,
            conv_strides=strides,
            conv_norm="group"
            if settings.get("extractor_mode", "default") == "default"
            else "layer",
            projection_norm=False,
            pos_conv_kernel=settings.get("conv_pos", 128),
            pos_conv_groups=settings.get("conv_pos_groups", 16),
            pre_norm=bool(settings.get("layer_norm_first", False)),
            projection_dropout=0.0,
            attention_dropout=settings.get("attention_dropout", 0.1),
            activation_dropout=settings.get("activation_dropout", 0.1),
            hidden_dropout=settings.get("dropout", 0.1),
        )
    except (LookupError, TypeError, ValueError, SyntaxError, RecursionError) as error:
        raise SkillError(f"{path}: the configuration lacks or misstates {error}") from error
    return config, _skill_names(state_dict(tensors, path))


def _skill_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        if name.startswith("output_layer."):
            continue
        for pattern, new in _NAMES.items():
            name, count = re.subn(f"^{pattern}", new, name)
            if count:
                break
        renamed[name] = tensor
    return encoder_tensors(renamed)


def _convolutions(text: Any) -> list[tuple[int, int, int]]:
    """(channels, kernel, stride) per layer, written as Python: lists, `+` and `*` a number."""

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return value(node.left) + value(node.right)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            layers, times = value(node.left), ast.literal_eval(node.right)
            return list(layers) * times if len(layers) * times <= _MOST_LAYERS else []
        return ast.literal_eval(node)

    if not isinstance(text, str) or len(text) > 1000:
        raise ValueError("extractor_conv_feature_layers")
    layers = value(ast.parse(text, mode="eval").body)
    if not layers or not all(isinstance(layer, tuple) and len(layer) == 3 for layer in layers):
        raise ValueError("extractor_conv_feature_layers")
    return list(layers)
