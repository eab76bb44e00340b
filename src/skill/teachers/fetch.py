"""The step `teacher`: a teacher from the hub or a folder, brought into this project's format."""

import re
from pathlib import Path

import torch

from skill.config.params import Teacher
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.encoder.checkpoint import load_encoder, save_encoder
from skill.utils.errors import SkillError
from skill.utils.files import checkout_path, sha256

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


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
        source = _from_hub(name, job) if job.hub is not None else checkout_path(str(job.source))
        if not source.exists():
            raise SkillError(f"teachers.{name}: {source} does not exist")
        _check(name, job, source)
        encoder = load_encoder(source)
    save_encoder(
        encoder, output, {"teacher": name, "provenance": {"origin": job.model_dump(mode="json")}}
    )


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
