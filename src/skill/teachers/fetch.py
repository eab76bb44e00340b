"""The step `teacher`: a teacher from the hub or a folder, brought into this project's format."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from skill.config.params import Teacher
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.encoder.checkpoint import load_encoder, save_encoder
from skill.encoder.formats import weights
from skill.teachers import hub
from skill.utils.errors import SkillError
from skill.utils.files import checkout_path, sha256

_SETTINGS = ("config.json", "preprocessor_config.json", "processor_config.json")
_PATTERNS = ("*.json", *weights.NAMES, "model-*.safetensors", "pytorch_model-*.bin")


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
        if job.hub is not None:
            source = hub.snapshot(f"teachers.{name}", job.hub, str(job.revision), _PATTERNS)
        else:
            source = checkout_path(str(job.source))
        if not source.exists():
            raise SkillError(f"teachers.{name}: {source} does not exist")
        _check(name, job, source)
        encoder = load_encoder(source)
    save_encoder(
        encoder, output, {"teacher": name, "provenance": {"origin": job.model_dump(mode="json")}}
    )


def _check(name: str, job: Teacher, source: Path) -> None:
    """Compare the files with `sha256`, and with what the hub's commit says that they are."""
    files = weights.folder_files(source) if source.is_dir() else [source]
    settings = [source / file for file in _SETTINGS if (source / file).is_file()]
    if job.hub is not None:
        for file in [*settings, *files]:
            _check_blob(name, file)
    else:
        files = [*settings, *files]
    if job.sha256 is not None and (digest := _digest(files)) != job.sha256:
        names = ", ".join(sorted(file.name for file in files))
        listed = f" ({names})" if len(files) > 1 else ""
        raise SkillError(
            f"teachers.{name}: {source}{listed} has the SHA-256 {digest}, not {job.sha256}"
        )


def _check_blob(name: str, file: Path) -> None:
    """The hub's cache names large files by their SHA-256, small ones by git's SHA-1."""
    blob = file.resolve()
    if re.fullmatch("[0-9a-f]{64}", blob.name):
        kind, digest = "SHA-256", sha256(file)
    elif re.fullmatch("[0-9a-f]{40}", blob.name):
        content = file.read_bytes()
        kind, digest = "SHA-1", hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    else:
        return
    if digest != blob.name:
        raise SkillError(
            f"teachers.{name}: {file} has the {kind} {digest}, not {blob.name}; "
            f"delete {blob} to fetch it again"
        )


def _digest(files: Sequence[Path]) -> str:
    """The SHA-256 of one file; of several, of what `sha256sum` prints for them by name."""
    if len(files) == 1:
        return sha256(files[0])
    lines = sorted((file.name, sha256(file)) for file in files)
    text = "".join(f"{digest}  {name}\n" for name, digest in lines)
    return hashlib.sha256(text.encode()).hexdigest()
