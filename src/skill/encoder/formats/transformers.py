"""Folders of `transformers`: the architecture in `config.json`, and the names of tensors.

Every setting of the families that are read is in one of three lists: `USED`, `ONE_VALUE` (only the
value that this encoder computes with is accepted) and `WITHOUT_EFFECT` on hidden states.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as shown
from typing import Any

from torch import Tensor

from skill.encoder.config import EncoderConfig, Family, all_heads, per_block
from skill.utils.errors import SkillError
from skill.utils.files import read_json

# `model_type` of what is read, and the family that computes the same.
FAMILIES: dict[str, Family] = {
    "wav2vec2": "wav2vec2",  # XLS-R and MMS, too
    "hubert": "hubert",
    "wavlm": "wavlm",
    "unispeech": "wav2vec2",
    "unispeech-sat": "wav2vec2",
}
_NOT_COMPUTED = {
    "data2vec-audio": "its stack of positional convolutions",
    "wav2vec2-bert": "its Conformer blocks on filter banks",
    "wav2vec2-conformer": "its Conformer blocks",
    "sew": "its squeezed sequence",
    "sew-d": "its squeezed sequence and disentangled attention",
}
USED = {
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "conv_dim", "conv_stride", "conv_kernel", "conv_bias", "num_feat_extract_layers",
    "feat_extract_norm", "feat_proj_layer_norm", "num_conv_pos_embeddings",
    "num_conv_pos_embedding_groups", "do_stable_layer_norm", "num_buckets", "max_bucket_distance",
    "layer_norm_eps", "feat_proj_dropout", "attention_dropout", "activation_dropout",
    "hidden_dropout",
}  # fmt: skip
ONE_VALUE: dict[str, tuple[Any, str]] = {
    "hidden_act": ("gelu", "this encoder has GELU only"),
    "feat_extract_activation": ("gelu", "this encoder has GELU only"),
    "conv_pos_batch_norm": (False, "a batch norm before the positional convolution"),
    "adapter_attn_dim": (None, "adapters in the blocks, as MMS has for its languages,"),
    "add_adapter": (False, "the convolutional adapter behind the blocks"),
}
WITHOUT_EFFECT = {
    # bookkeeping, and what the library returns
    "transformers_version", "architectures", "dtype", "torch_dtype", "_name_or_path", "auto_map",
    "output_hidden_states", "output_attentions", "return_dict", "is_encoder_decoder",
    "gradient_checkpointing", "tokenizer_class", "chunk_size_feed_forward", "use_cache",
    # weights before training, and training itself
    "initializer_range", "layerdrop", "final_dropout", "apply_spec_augment", "mask_time_prob",
    "mask_time_length", "mask_time_min_masks", "mask_time_min_space", "mask_time_other",
    "mask_time_selection", "mask_feature_prob", "mask_feature_length", "mask_feature_min_masks",
    "mask_channel_length", "mask_channel_min_space", "mask_channel_other", "mask_channel_prob",
    "mask_channel_selection", "no_mask_channel_overlap", "no_mask_time_overlap", "replace_prob",
    "freeze_feat_extract_train", "feat_quantizer_dropout", "num_codevectors_per_group",
    "num_codevector_groups", "contrastive_logits_temperature", "num_negatives", "codevector_dim",
    "proj_codevector_dim", "diversity_loss_weight", "num_clusters", "num_ctc_classes",
    # heads on top of the encoder, and the adapters that `add_adapter` would add
    "vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "ctc_loss_reduction",
    "ctc_zero_infinity", "use_weighted_layer_sum", "classifier_proj_size", "tdnn_dim",
    "tdnn_kernel", "tdnn_dilation", "xvector_output_dim", "id2label", "label2id", "problem_type",
    "num_labels", "finetuning_task", "adapter_kernel_size", "adapter_stride",
    "num_adapter_layers", "output_hidden_size",
}  # fmt: skip
# What a model class with a head calls its encoder.
_PREFIXES = ("wav2vec2.", "hubert.", "wavlm.", "unispeech.", "unispeech_sat.", "speech.")
# Parts beside the encoder in checkpoints without such a prefix.
_NOT_ENCODER = re.compile(
    r"(masked_spec_embed$|quantizer\.|project_q\.|project_hid\.|label_embs_concat$|final_proj\.)"
)
_OLD_WEIGHT_NORM = {
    ".weight_g": ".parametrizations.weight.original0",
    ".weight_v": ".parametrizations.weight.original1",
}


def encoder_config(settings: dict[str, Any], folder: Path) -> EncoderConfig:
    """The architecture that a `config.json` of `transformers` describes.

    Raises:
        SkillError: another kind of model, a setting that this encoder does not compute, or one that
            is missing or of no sense; the message names the setting.
    """
    kind = str(settings.get("model_type"))
    if kind in _NOT_COMPUTED:
        raise SkillError(
            f"{folder}: model_type is {shown(kind)}: {_NOT_COMPUTED[kind]} is not computed"
        )
    family = FAMILIES.get(kind)
    if family is None:
        raise SkillError(f"{folder}: model_type is {shown(kind)}, none of {', '.join(FAMILIES)}")
    for name, (value, why) in ONE_VALUE.items():
        if (setting := settings.get(name, value)) != value:
            what = why if why.startswith("this") else f"{why} is not computed"
            raise SkillError(f"{folder}: {name} is {shown(setting)}; {what}")
    if unknown := sorted(settings.keys() - USED - ONE_VALUE.keys() - WITHOUT_EFFECT):
        names = ", ".join(unknown[:10])
        print(f"note: {folder}: config.json has settings that are not known: {names}",
              file=sys.stderr)  # fmt: skip
    try:
        blocks, heads = settings["num_hidden_layers"], settings["num_attention_heads"]
        channels = tuple(settings["conv_dim"])
        if settings.get("num_feat_extract_layers", len(channels)) != len(channels):
            raise ValueError("num_feat_extract_layers and conv_dim, which differ in length")
        return EncoderConfig(
            family=family,
            width=settings["hidden_size"],
            conv_channels=channels,
            conv_full_width=channels[-1],
            heads=per_block(all_heads(heads), blocks),
            total_heads=heads,
            ffn=per_block(settings["intermediate_size"], blocks),
            conv_kernels=tuple(settings["conv_kernel"]),
            conv_strides=tuple(settings["conv_stride"]),
            conv_bias=settings.get("conv_bias", False),
            conv_norm=settings.get("feat_extract_norm", "group"),
            projection_norm=settings.get("feat_proj_layer_norm", True) or kind != "hubert",
            pos_conv_kernel=settings.get("num_conv_pos_embeddings", 128),
            pos_conv_groups=settings.get("num_conv_pos_embedding_groups", 16),
            pre_norm=settings.get("do_stable_layer_norm", False),
            relative_buckets=settings.get("num_buckets", 320) if family == "wavlm" else 0,
            relative_distance=settings.get("max_bucket_distance", 800) if family == "wavlm" else 0,
            normalize_waveform=normalizes(folder, settings.get("feat_extract_norm") == "layer"),
            layer_norm_eps=settings.get("layer_norm_eps", 1e-5),
            projection_dropout=settings.get("feat_proj_dropout", 0.0),
            attention_dropout=settings.get("attention_dropout", 0.1),
            activation_dropout=settings.get("activation_dropout", 0.1),
            hidden_dropout=settings.get("hidden_dropout", 0.1),
        )
    except (LookupError, TypeError, ValueError) as error:
        raise SkillError(f"{folder}: the configuration lacks or misstates {error}") from error


def normalizes(folder: Path, layer_norm: bool) -> bool:
    """Whether a model normalises its waveforms; the folder's feature extractor says so.

    Models with a group norm do not: the Base models were trained on plain waveforms, whatever their
    folders say. Models with layer norms do where no file says otherwise, as all published ones.

    Raises:
        SkillError: the feature extractor is for another sampling rate or kind of input.
    """
    file, extractor = feature_extractor(folder)
    if extractor is None:
        if layer_norm:
            print(
                f"note: {folder}: no file of a feature extractor; a model with layer norms in its "
                "convolutions, so waveforms are normalised",
                file=sys.stderr,
            )
        return layer_norm
    for name, value in (("sampling_rate", 16000), ("feature_size", 1)):
        if extractor.get(name, value) != value:
            raise SkillError(f"{file}: {name} is {shown(extractor[name])}; only {value} is read")
    normalize = extractor.get("do_normalize", True)
    if not isinstance(normalize, bool):
        raise SkillError(f"{file}: do_normalize is {shown(normalize)}, neither true nor false")
    if normalize and not layer_norm:
        print(
            f"note: {file}: do_normalize is true, but the model has a group norm: such models were "
            "trained on plain waveforms, and get them",
            file=sys.stderr,
        )
    return normalize and layer_norm


def feature_extractor(folder: Path) -> tuple[Path, dict[str, Any] | None]:
    """The settings of a folder's feature extractor, and the file they are in; None: no file.

    `transformers` looks into `processor_config.json` first, where its version 5 nests them.
    """
    processor, plain = folder / "processor_config.json", folder / "preprocessor_config.json"
    if processor.exists():
        nested = read_config(processor)
        for part in ("feature_extractor", "audio_processor"):
            if isinstance(nested.get(part), dict):
                return processor, nested[part]
    return plain, read_config(plain) if plain.exists() else None


def encoder_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's tensors of any model class, under this project's names.

    A class with a head has the encoder under its family's name, and the head beside it.
    """
    for prefix in _PREFIXES:
        if any(name.startswith(prefix) for name in tensors):
            tensors = {
                name.removeprefix(prefix): tensor
                for name, tensor in tensors.items()
                if name.startswith(prefix)
            }
            break
    renamed = {}
    for name, tensor in tensors.items():
        for old, new in _OLD_WEIGHT_NORM.items():
            if name.endswith(old):
                name = name.removesuffix(old) + new
        if not _NOT_ENCODER.match(name):
            renamed[name] = tensor
    return renamed


def read_config(path: Path) -> dict[str, Any]:
    """A JSON file that holds a mapping.

    Raises:
        SkillError: it holds something else, or cannot be read.
    """
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise SkillError(f"{path}: no configuration but {type(settings).__name__}")
    return settings
