"""Encoders in files: one safetensors file with the architecture in its header.

A folder holds such a file as `model.safetensors`, with the architecture in `config.json`. Folders
of `transformers` are read, too (`skill.encoder.formats.transformers`).
"""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skill.encoder.config import EncoderConfig
from skill.encoder.formats import transformers
from skill.encoder.model import SpeechEncoder
from skill.utils.errors import SkillError
from skill.utils.files import read_header, read_tensors, write_json, write_tensors


def save_encoder(
    encoder: SpeechEncoder, path: str | PathLike[str], facts: Mapping[str, Any] = {}
) -> None:
    """Write one file; `facts` go into its header beside the architecture."""
    header = {"kind": "encoder", "config": encoder.config.to_dict()} | dict(facts)
    write_tensors(path, encoder.state_dict(), header)


def save_folder(encoder: SpeechEncoder, folder: str | PathLike[str]) -> None:
    """Write `config.json` and `model.safetensors`."""
    folder = Path(folder)
    save_encoder(encoder, folder / "model.safetensors")
    write_json(folder / "config.json", {"model_type": "skill", "encoder": encoder.config.to_dict()})


def load_encoder(path: str | PathLike[str]) -> SpeechEncoder:
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
        written = transformers.read_config(path / "config.json")
        if written.get("model_type") != "skill":
            return build(
                transformers.encoder_config(written, path), transformers.encoder_tensors(path), path
            )
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
