"""Tensors in files that other programs wrote: safetensors, torch's pickles, and shards of both.

Nothing in a file is executed. What a file claims is compared with its size before memory is used.
"""

import argparse
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePath
from pickle import UnpicklingError
from typing import Any, Literal, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from skill.encoder import EncoderConfig, SpeechEncoder
from skill.utils.errors import SkillError
from skill.utils.files import read_json, refuse_pointer

Value = TypeVar("Value")
# In a folder of `transformers`, in the order in which `transformers` looks for them.
NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# Files of several states keep the model's under one of these.
_NESTED = ("state_dict", "model_state_dict", "model")
# Of data-parallel training, `torch.compile` and Lightning, before the names of all tensors.
_WRAPPERS = ("module.", "_orig_mod.", "model.")
_READ = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_UNREAD = (".h5", ".msgpack", ".gguf", ".onnx")
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def folder_files(folder: Path) -> list[Path]:
    """The files of a folder that hold its weights: one, or an index and its shards.

    Raises:
        SkillError: there is none, or the index is damaged.
    """
    for name in NAMES:
        path = folder / name
        if path.is_file():
            return [path, *_shard_files(path)] if path.suffix == ".json" else [path]
    kinds = (("which is not read", _UNREAD), ("which is read where its own path is given", _READ))
    remark = "".join(
        f"; there is {file.name}, {what}"
        for what, suffixes in kinds
        for file in sorted(folder.iterdir())[:5]
        if file.suffix in suffixes
    )
    raise SkillError(f"{folder}: neither model.safetensors nor pytorch_model.bin is there{remark}")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of one model in a file, or in the shards that an index lists.

    What wraps them is taken away: `{"state_dict": …}`, and what training puts before all names.

    Raises:
        SkillError: the file cannot be read, or holds something else than tensors.
    """
    kind = file_kind(path)
    if kind == "json":
        return _read_shards(path)
    if kind == "torch":
        return state_dict(unpickle(path), path)
    try:
        return _without_wrapping(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise SkillError(f"{path}: not a readable safetensors file: {error}") from error


def file_kind(path: Path) -> Literal["safetensors", "torch", "json"]:
    """What a file is by its first bytes, whatever its name.

    Raises:
        SkillError: none of the three, or a pointer of Git LFS.
    """
    refuse_pointer(path)
    try:
        with path.open("rb") as file:
            start, size = file.read(16), path.stat().st_size
    except OSError as error:
        raise SkillError(f"{path}: cannot be read: {error.strerror or error}") from error
    # A safetensors file begins with the length of its header, which may be any bytes.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size:
        return "safetensors"
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return "torch"
    if start.lstrip().startswith(b"{"):
        return "json"
    raise SkillError(f"{path}: not a readable safetensors file, nor one of torch")


def refuse_shard(file: Path) -> None:
    """Raise `SkillError` where an index beside the file says that it is a part of the weights."""
    for name in NAMES:
        index = file.parent / name
        if index.suffix == ".json" and index.is_file() and file in _shard_files(index):
            raise SkillError(f"{file}: one of the shards that {name} lists; give the folder")


def unpickle(path: Path) -> dict[str, Any]:
    """What `torch.save` wrote; only tensors and plain values are made of it.

    Raises:
        SkillError: the file is damaged, or holds other objects, or no mapping.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                    raise SkillError(f"{path}: compressed, which no file of torch is")
        # Released checkpoints carry the options of their training, which are plain values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        other = re.search(r"GLOBAL (\S+)", str(error))
        why = f"it holds {other[1]}, and only tensors are loaded" if other else "it is damaged"
        raise SkillError(f"{path}: weights that cannot be read: {why}") from error
    except SkillError:
        raise
    except Exception as error:  # torch raises many kinds for a damaged file
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise SkillError(f"{path}: weights that cannot be read: {why}") from error
    if not isinstance(content, dict):
        raise SkillError(f"{path}: holds no weights but {type(content).__name__}")
    return content


def state_dict(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The model's tensors in what `unpickle` read.

    Raises:
        SkillError: a checkpoint of fairseq, something that is no tensor, or tensors of more values
            than the file has.
    """
    if "model" in content and ("cfg" in content or "args" in content):
        raise SkillError(
            f"{path}: a checkpoint of fairseq, which is not read: convert it to a folder of "
            "transformers, and give the folder"
        )
    nested = next((content[key] for key in _NESTED if isinstance(content.get(key), dict)), content)
    for name, value in nested.items():
        if not isinstance(value, Tensor):
            raise SkillError(f"{path}: {name!r} is no tensor but {type(value).__name__}")
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            raise SkillError(f"{path}: the tensor {name} is sparse, quantised or without values")
    size = sum(value.numel() * value.element_size() for value in nested.values())
    if size > 2 * path.stat().st_size:  # twice, for tensors that are tied
        raise SkillError(f"{path}: its tensors claim {size} bytes, the file has fewer")
    return _without_wrapping(nested)


def floats(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors in float32.

    Raises:
        SkillError: one is of another kind than floats of 16 to 64 bits, or a value is not finite
            (in float32); the message names it.
    """
    converted = {}
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise SkillError(f"{path}: the tensor {name} is of {kind}, no floats of 16 to 64 bits")
        converted[name] = tensor.float()
        if not torch.isfinite(converted[name]).all():
            raise SkillError(f"{path}: the tensor {name} has values that are not finite")
    return converted


def _without_wrapping(tensors: Mapping[Any, Value]) -> dict[str, Value]:
    named = {str(name): tensor for name, tensor in tensors.items()}
    for prefix in _WRAPPERS * 2:  # they may be nested, in any order
        if named and all(name.startswith(prefix) for name in named):
            named = {name.removeprefix(prefix): tensor for name, tensor in named.items()}
    return named


def _shard_files(index: Path) -> list[Path]:
    return [index.parent / name for name in dict.fromkeys(_weight_map(index).values())]


def _weight_map(index: Path) -> dict[str, str]:
    """Which shard each tensor is in. Shards lie beside the index, nowhere else."""
    content = read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places:
        raise SkillError(f"{index}: no weights, and no index of shards: `weight_map` is missing")
    for name, shard in places.items():
        if not isinstance(shard, str) or shard in ("", ".", "..") or PurePath(shard).name != shard:
            raise SkillError(f"{index}: weight_map.{name} names no file beside it: {shard!r}")
    return places


def _read_shards(index: Path) -> dict[str, Tensor]:
    places = _weight_map(index)
    tensors: dict[str, Tensor] = {}
    for shard in _shard_files(index):
        if not shard.is_file():
            raise SkillError(f"{shard}: missing, and {index.name} lists it")
        if file_kind(shard) == "json":
            raise SkillError(f"{shard}: holds no weights")
        tensors |= read_weights(shard)
    for name in sorted(_without_wrapping(places).keys() - tensors.keys()):
        raise SkillError(f"{index}: the tensor {name} is in none of the shards")
    return tensors


def build(config: EncoderConfig, tensors: Mapping[str, Tensor], path: Path) -> SpeechEncoder:
    """An encoder in evaluation mode that holds `tensors`; `path` is for the messages.

    Shapes are compared before memory is taken for the encoder.

    Raises:
        SkillError: a tensor is missing, superfluous, of another shape or kind, or not finite.
    """
    with torch.device("meta"):
        expected = SpeechEncoder(config).state_dict()
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
    values = floats(tensors, path)
    encoder = SpeechEncoder(config)
    encoder.load_state_dict(values)
    return encoder.eval()
