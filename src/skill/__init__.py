"""SKILL: similarity-aware knowledge distillation of speech self-supervised models."""

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skill.utils.errors import SkillError

if TYPE_CHECKING:
    from skill.encoder import SpeechEncoder

__all__ = ["SkillError", "SpeechEncoder", "load", "save"]


def load(name: str | PathLike[str]) -> "SpeechEncoder":
    """An encoder in evaluation mode, ready for 16 kHz waveforms [B, S].

    Args:
        name: a file or folder of this project or of `transformers`; or the name of a student or
            teacher that a run left under `results/` in the working directory or the checkout.

    Raises:
        SkillError: nothing is found under that name, or it holds no encoder.
    """
    from skill.encoder.checkpoint import find_encoder, load_encoder

    return load_encoder(find_encoder(name))


def save(encoder: "SpeechEncoder", path: str | PathLike[str]) -> None:
    """Write an encoder that `load` reads: one file if `path` ends in .safetensors, else a folder.

    Raises:
        SkillError: it cannot be written.
    """
    from skill.encoder.checkpoint import save_encoder, save_folder

    (save_encoder if Path(path).suffix == ".safetensors" else save_folder)(encoder, path)


def __getattr__(name: str) -> Any:
    if name == "__version__":  # imported late: Ctrl-C has no handler until `__main__` is read
        from importlib import metadata

        return metadata.version("skill")
    if name == "SpeechEncoder":  # torch is imported with it, which the workflow does without
        from skill.encoder import SpeechEncoder

        return SpeechEncoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
