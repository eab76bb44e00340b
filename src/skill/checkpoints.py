"""Reading and writing encoders: this project's files, and folders of `transformers`.

The only module that knows foreign formats, beside `layouts`, which knows torchaudio's names. Our
own format is one safetensors file with the architecture in its header; a folder of
`save_pretrained` holds such a file as `model.safetensors`.
"""

import json
import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from skill.encoder import EncoderConfig, SpeechEncoder
from skill.errors import SkillError
from skill.files import read_header, read_tensors, sha256, write_json, write_tensors
from skill.params import Teacher
from skill.repository import find

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
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


def save(encoder: SpeechEncoder, path: str | PathLike[str], facts: Mapping[str, Any] = {}) -> None:
    """Write one file; `facts` go into its header beside the architecture."""
    header = {"kind": "encoder", "config": encoder.config.to_dict()} | dict(facts)
    write_tensors(path, encoder.state_dict(), header)


def save_folder(encoder: SpeechEncoder, folder: str | PathLike[str]) -> None:
    """Write `config.json` and `model.safetensors`."""
    folder = Path(folder)
    save(encoder, folder / "model.safetensors")
    write_json(folder / "config.json", {"model_type": "skill", "encoder": encoder.config.to_dict()})


def load(path: str | PathLike[str]) -> SpeechEncoder:
    """Read a file of this project, or a folder of this project or of `transformers`.

    Half-precision weights become float32.

    Raises:
        SkillError: no encoder in there, an unknown architecture, or a tensor that is missing,
            superfluous, of another shape or not finite; the message names the file and the tensor.
    """
    path = Path(path)
    if not path.exists():
        raise SkillError(f"{path}: no such file or folder")
    if path.is_dir():
        own = path / "model.safetensors"
        written = _read_config(path / "config.json")
        if written.get("model_type") != "skill":
            return build(_foreign_config(written, path), _foreign_tensors(path), path)
        path = own
    header = read_header(path)
    if header.get("kind") != "encoder":
        raise SkillError(f"{path}: holds no encoder but {header.get('kind')!r}")
    try:
        config = EncoderConfig.from_dict(header["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise SkillError(f"{path}: {error}") from error
    return build(config, read_tensors(path)[0], path)


def build(config: EncoderConfig, tensors: dict[str, Tensor], path: Path) -> SpeechEncoder:
    """An encoder in evaluation mode that holds `tensors`; `path` is for the messages.

    Raises:
        SkillError: a tensor is missing, superfluous, of another shape or not finite.
    """
    encoder = SpeechEncoder(config)
    expected = encoder.state_dict()
    for name in sorted(expected.keys() - tensors.keys()):
        raise SkillError(f"{path}: the tensor {name} is missing")
    for name in sorted(tensors.keys() - expected.keys()):
        raise SkillError(f"{path}: the tensor {name} belongs to no part of the model")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise SkillError(
                f"{path}: the tensor {name} has the shape {list(tensor.shape)} "
                f"instead of {list(expected[name].shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise SkillError(f"{path}: the tensor {name} has values that are not finite")
    encoder.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return encoder.eval()


def _read_config(path: Path) -> dict[str, Any]:
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SkillError(f"{path}: no readable configuration: {error}") from error
    if not isinstance(written, dict):
        raise SkillError(f"{path}: no configuration but {type(written).__name__}")
    return written


def _foreign_config(written: dict[str, Any], path: Path) -> EncoderConfig:
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
    return bool(_read_config(path).get("do_normalize", False)) if path.exists() else False


def _foreign_tensors(folder: Path) -> dict[str, Tensor]:
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


def run_teacher(name: str, job: Teacher, output: Path) -> None:
    """The verb `teacher`: bring a teacher into this project's format.

    Raises:
        SkillError: the source is missing or no encoder, or its checksum is another one.
    """
    if job.random is not None:
        torch.manual_seed(job.random.seed)
        encoder = SpeechEncoder(
            EncoderConfig.uniform(
                job.random.family,
                width=job.random.width,
                blocks=job.random.blocks,
                heads=job.random.heads,
                ffn=job.random.ffn,
                conv=job.random.conv_channels,
                pos_conv_kernel=16,
                pos_conv_groups=4,
            )
        )
    else:
        source = _from_hub(name, job) if job.hub is not None else find(str(job.source))
        if not source.exists():
            raise SkillError(f"teachers.{name}: {source} does not exist")
        _check(name, job, source)
        encoder = load(source)
    save(encoder, output, {"teacher": name, "provenance": {"origin": job.model_dump(mode="json")}})


def _from_hub(name: str, job: Teacher) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                str(job.hub),
                revision=job.revision,
                allow_patterns=["*.json", *_WEIGHTS],
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise SkillError(
            f"teachers.{name}: {job.hub} at {job.revision} is neither cached nor to be had: {error}"
        ) from error


def _check(name: str, job: Teacher, source: Path) -> None:
    """Compare the weights with `sha256`, or with what the commit of the hub says they are."""
    file = next((source / n for n in _WEIGHTS if (source / n).exists()), source)
    expected = job.sha256
    if expected is None and job.hub is not None:
        # The hub keeps large files by their SHA-256; its cache names the blobs so.
        blob = file.resolve().name
        expected = blob if re.fullmatch("[0-9a-f]{64}", blob) else None
    if expected is not None and (found := sha256(file)) != expected:
        advice = "" if job.hub is None else f"; delete {file.resolve()} to fetch it again"
        raise SkillError(f"teachers.{name}: {file} has the SHA-256 {found}, not {expected}{advice}")
