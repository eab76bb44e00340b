"""A folder of audio as a corpus, for systems without Debian packages and for one's own speech.

Sub-folders are speakers; a `.txt` of the same name beside a file is its transcript (English).
Split: by text where there is one, else by file name.
"""

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import soundfile

from skill.data import splits
from skill.data.corpora.clips import Clip, Signal
from skill.data.transcripts import transcript
from skill.utils.errors import SkillError

# libsndfile reads what is there of a truncated file, and remarks on it: WAV, AIFF; Ogg; MP3
_LENGTHS = re.compile(r"(?:data|SSND)\s*:\s*(\d+) \(should be (\d+)\)")
_UNKNOWN = 0x7FFFFFFF  # bytes: programs that write into a pipe say so much, or more
_NO_END = "lacks an end-of-stream bit"
_LEAST = 0.9  # of the frames that an MP3 says it has, which may be an estimate
_SUFFIXES = frozenset((".flac", ".wav", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff"))


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
        path for path in place.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file()
    )
    if not files:
        kinds = ", ".join(sorted(_SUFFIXES))
        raise SkillError(f"corpus {name}: no audio file ({kinds}) in {place}")
    for path in files:
        inside = path.relative_to(place)
        script = path.with_suffix(".txt")
        text = transcript(_text(script)) if script.is_file() else ""
        yield Clip(
            f"{name}-{inside.as_posix()}",
            partial(_decoded, path),
            speaker=inside.parts[0] if len(inside.parts) > 1 else "",
            text=text,
            split=splits.by_text(text or inside.as_posix()),
        )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SkillError(f"{path}: not readable as text: {error}") from error


def _decoded(path: Path) -> tuple[Signal, int]:
    try:
        with soundfile.SoundFile(path) as file:
            signal, rate = file.read(dtype="float32"), file.samplerate
            promised, remarks = file.frames, file.extra_info
    except soundfile.LibsndfileError as error:
        raise SkillError(f"{path}: not readable as audio: {error.error_string}") from error
    if not len(signal):
        raise SkillError(f"{path}: no audio in it")
    short = [int(there) < int(said) < _UNKNOWN for said, there in _LENGTHS.findall(remarks)]
    if any(short) or _NO_END in remarks or len(signal) < _LEAST * promised:
        raise SkillError(f"{path}: truncated: there is less audio than its header says")
    return signal, rate
