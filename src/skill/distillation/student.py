"""The student: how it starts, and the file in which stage 1 hands it to stage 2."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from skill.encoder import EncoderConfig, SpeechEncoder
from skill.encoder.formats.weights import build
from skill.utils.errors import SkillError
from skill.utils.files import read_tensors, write_tensors


def start_student(
    teacher: SpeechEncoder, blocks: int | None, dropout: float | None = None
) -> SpeechEncoder:
    """A copy of the teacher, or of its first `blocks` blocks; `dropout`: see `with_dropout`.

    Raises:
        SkillError: the teacher has fewer blocks.
    """
    config = with_dropout(teacher.config, dropout)
    if blocks is not None and blocks > config.num_blocks:
        raise SkillError(f"a student of {blocks} blocks, but the teacher has {config.num_blocks}")
    student = SpeechEncoder(replace(config, heads=config.heads[:blocks], ffn=config.ffn[:blocks]))
    state = teacher.state_dict()
    student.load_state_dict({name: state[name] for name in student.state_dict()})
    return student


def with_dropout(config: EncoderConfig, dropout: float | None) -> EncoderConfig:
    """`config` with DPHuBERT's places of dropout: all but inside the feed-forward layers.

    None leaves the teacher's, which is what its pretraining needed.
    """
    if dropout is None:
        return config
    return replace(
        config,
        projection_dropout=dropout,
        attention_dropout=dropout,
        hidden_dropout=dropout,
        activation_dropout=0.0,
    )


def write_stage1(
    path: Path, student: SpeechEncoder, projections: Mapping[str, Tensor], header: dict[str, Any]
) -> None:
    """The pruned student and its projections; `header` is added to the file's."""
    tensors = {f"encoder.{key}": value for key, value in student.state_dict().items()}
    tensors |= {f"projections.{key}": value for key, value in projections.items()}
    write_tensors(path, tensors, {"kind": "stage1", "config": student.config.to_dict()} | header)


def read_stage1(path: Path, dropout: float | None) -> tuple[SpeechEncoder, dict[str, Tensor]]:
    """The student, with this dropout, and its projections.

    Raises:
        SkillError: the file is none that `write_stage1` has written.
    """
    tensors, header = read_tensors(path)
    if header.get("kind") != "stage1":
        raise SkillError(f"{path}: not a student of stage 1")
    parts: dict[str, dict[str, Tensor]] = {"encoder": {}, "projections": {}}
    try:
        config = with_dropout(EncoderConfig.from_dict(header["config"]), dropout)
        for key, value in tensors.items():
            part, _, name = key.partition(".")
            parts[part][name] = value
    except (KeyError, ValueError) as error:
        raise SkillError(f"{path}: not as stage 1 writes a student: {error}") from error
    return build(config, parts["encoder"], path).train(), parts["projections"]
