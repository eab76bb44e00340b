"""A folder of audio as a corpus, for systems without Debian packages and for one's own speech.

Sub-folders are speakers; a `.txt` of the same name beside a file is its transcript (English).
Split: by text where there is one, else by file name.
"""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from skill.data import splits
from skill.data.audio import SUFFIXES, read_recording, require_sound
from skill.data.corpora.clips import BAND_RATE, Clip, Signal
from skill.data.transcripts import transcript
from skill.utils.errors import SkillError


def root(name: str, shared: bool = False) -> Path:
    """The folder of the corpus `name` below SKILL_CORPORA; where `shared`, else all of it.

    Raises:
        SkillError: the variable or the folder is missing.
    """
    given = os.environ.get("SKILL_CORPORA")
    if not given:
        raise SkillError(f"corpus {name}: SKILL_CORPORA is not set to a folder of audio")
    if not Path(given).is_dir():
        raise SkillError(f"corpus {name}: SKILL_CORPORA is {given}, which is no folder")
    own = Path(given) / name
    if own.is_dir():
        return own
    if not shared:
        raise SkillError(f"corpus {name}: its audio is expected in {own}, which is no folder")
    return Path(given)


def clips(name: str, place: Path) -> Iterator[Clip]:
    """All audio files below `place`, sorted by path."""
    files = sorted(
        path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    if not files:
        kinds = ", ".join(sorted(SUFFIXES))
        raise SkillError(f"corpus {name}: no audio file ({kinds}) in {place}")
    for path in files:
        inside = path.relative_to(place)
        script = path.with_suffix(".txt")
        text = transcript(_text(script)) if script.is_file() else ""
        yield Clip(
            f"{name}-{inside.as_posix()}",
            partial(_load, path),
            speaker=inside.parts[0] if len(inside.parts) > 1 else "",
            text=text,
            split=splits.by_text(text or inside.as_posix()),
        )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SkillError(f"{path}: not readable as text: {error}") from error


def _load(path: Path) -> tuple[Signal, int]:
    return require_sound(read_recording(path, BAND_RATE), path), BAND_RATE
