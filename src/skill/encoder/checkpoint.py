"""Encoders in files: one safetensors file with the architecture in its header.

A folder holds such a file as `model.safetensors`, with the architecture in `config.json`. Files and
folders that other programs wrote are read, too (`skill.encoder.formats`); `load_encoder` is the one
place that decides which format a path has.
"""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from reprlib import repr as shown
from typing import Any

from skill.encoder.config import EncoderConfig
from skill.encoder.formats import distilhubert, dphubert, transformers, weights
from skill.encoder.model import SpeechEncoder
from skill.utils.errors import SkillError
from skill.utils.files import (
    read_header,
    read_metadata,
    read_tensors,
    refuse_pointer,
    write_json,
    write_tensors,
)


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


def find_encoder(name: str | PathLike[str]) -> Path:
    """The file or folder of an encoder.

    Args:
        name: a path; or the name of a student or teacher that a run left under `results/` in the
            working directory or the checkout. A name goes before a folder of the same name.

    Raises:
        SkillError: neither is there.
    """
    path = Path(name)
    try:
        if path.is_file():
            return path
        for root in (Path(), Path(__file__).parents[3]) if path.name == str(name) else ():
            for phase in ("stage2", "teachers"):
                result = root / "results" / phase / f"{name}.safetensors"
                if result.is_file():
                    return result
        if path.is_dir():
            return path
    except (OSError, ValueError) as error:
        raise SkillError(f"{name}: {error}") from error
    raise SkillError(
        f"{name}: neither a file or folder, nor a model under results/ "
        "(`make reproduce` makes them, `dvc pull` brings them)"
    )


def stored_header(path: Path) -> dict[str, Any]:
    """The header of a file of this project, or of the weights in a folder; {} if it has none."""
    path = path / "model.safetensors" if path.is_dir() else path
    try:
        return dict(read_header(path))
    except SkillError:
        return {}


def load_encoder(path: str | PathLike[str]) -> SpeechEncoder:
    """Read an encoder of this project, `transformers`, DPHuBERT or DistilHuBERT: file or folder.

    Weights in other precisions become float32.

    Raises:
        SkillError: no encoder in there, an unknown architecture, or a tensor that is missing,
            superfluous, of another shape or not finite; the message names the file and the tensor.
    """
    path = Path(path)
    if path.is_dir():
        return _from_folder(path)
    if not path.is_file():
        kind = "neither a file nor a folder" if path.exists() else "no such file or folder"
        raise SkillError(f"{path}: {kind}")
    kind = weights.file_kind(path)
    if kind == "torch":
        return _from_torch(path)
    if kind == "safetensors" and _has_header(path):
        return _from_skill_file(path)
    return _from_foreign_file(path)


def _has_header(path: Path) -> bool:
    return "skill" in read_metadata(path)


def _from_skill_file(path: Path) -> SpeechEncoder:
    header = read_header(path)
    if header.get("kind") != "encoder":
        raise SkillError(f"{path}: holds no encoder but {shown(header.get('kind'))}")
    return weights.build(_config(header.get("config"), path), read_tensors(path)[0], path)


def _from_folder(folder: Path) -> SpeechEncoder:
    if not (folder / "config.json").exists():
        for path in sorted(folder.iterdir()):
            if path.suffix in (".safetensors", ".bin", ".pt"):
                refuse_pointer(path)
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:5])
        raise SkillError(f"{folder}: no folder of a model: config.json is missing (there: {there})")
    settings = transformers.read_config(folder / "config.json")
    if settings.get("model_type") == "skill":
        file = weights.folder_files(folder)[0]
        if file.suffix == ".safetensors" and _has_header(file):
            return _from_skill_file(file)
    config = _folder_config(folder)
    return _from_parts(config, weights.folder_files(folder)[0])


def _folder_config(folder: Path) -> EncoderConfig:
    """The architecture in a folder's `config.json`."""
    settings = transformers.read_config(folder / "config.json")
    if settings.get("model_type") != "skill":
        return transformers.encoder_config(settings, folder)
    return _config(settings.get("encoder"), folder / "config.json")


def _from_parts(config: EncoderConfig, file: Path) -> SpeechEncoder:
    return weights.build(config, transformers.encoder_tensors(weights.read_weights(file)), file)


def _from_foreign_file(file: Path) -> SpeechEncoder:
    if not (file.parent / "config.json").exists():
        raise SkillError(
            f"{file}: weights without an architecture: no `skill` header in it, and no config.json "
            "beside it; a folder as transformers writes it has both"
        )
    weights.refuse_shard(file)
    return _from_parts(_folder_config(file.parent), file)


def _from_torch(path: Path) -> SpeechEncoder:
    content = weights.unpickle(path)
    if dphubert.is_dphubert(content):
        return dphubert.read_dphubert(path)
    if distilhubert.is_distilhubert(content):
        return weights.build(*distilhubert.read_distilhubert(content, path), path)
    weights.state_dict(content, path)
    return _from_foreign_file(path)


def _config(values: Any, path: Path) -> EncoderConfig:
    try:
        return EncoderConfig.from_dict(values)
    except ValueError as error:
        raise SkillError(f"{path}: {error}") from error
