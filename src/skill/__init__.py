"""SKILL: similarity-aware knowledge distillation of speech self-supervised models."""

from pathlib import Path
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from skill.encoder import SpeechEncoder


def load(name: str | Path) -> "SpeechEncoder":
    """An encoder in evaluation mode, ready for 16 kHz waveforms [B, S].

    Args:
        name: a file or folder of this project or of `transformers`; or the name of a student or
            teacher that a run left under `results/` in the working directory or the checkout.

    Raises:
        SkillError: nothing is found under that name, or it holds no encoder.
    """
    from skill.encoder.checkpoint import load_encoder
    from skill.utils.errors import SkillError

    if Path(name).exists():
        return load_encoder(name).eval()
    for root in (Path(), Path(__file__).parents[2]):
        for phase in ("stage2", "teachers"):
            path = root / "results" / phase / f"{name}.safetensors"
            if path.exists():
                return load_encoder(path).eval()
    raise SkillError(
        f"{name}: neither a file or folder, nor a model under results/ "
        "(`make reproduce` makes them, `dvc pull` brings them)"
    )
