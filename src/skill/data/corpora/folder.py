"""A folder of audio as a corpus, for systems without Debian packages and for one's own speech.

Sub-folders are speakers; a `.txt` of the same name beside a file is its transcript (English).
Split: by text where there is one, else by file name.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from skill.data import splits
from skill.data.audio import SUFFIXES, read_recording, require_sound
from skill.data.corpora import omissions
from skill.data.corpora.clips import BAND_RATE, Clip, Signal
from skill.data.manifest import is_writable
from skill.data.transcripts import spell_out, transcript
from skill.utils.errors import SkillError
from skill.utils.text import read_text


def root(name: str, shared: bool = False) -> Path:
    """The folder of the corpus `name` below SKILL_CORPORA; where `shared`, else all of it.

    Raises:
        SkillError: the variable or the folder is missing.
    """
    corpora = os.environ.get("SKILL_CORPORA")
    if not corpora:
        raise SkillError(f"corpus {name}: SKILL_CORPORA is not set to a folder of audio")
    if not Path(corpora).is_dir():
        raise SkillError(f"corpus {name}: SKILL_CORPORA is {corpora}, which is no folder")
    folder = Path(corpora) / name
    if folder.is_dir():
        return folder
    if not shared:
        raise SkillError(f"corpus {name}: its audio is expected in {folder}, which is no folder")
    return Path(corpora)


def clips(name: str, place: Path) -> Iterator[Clip]:
    """All audio files below `place`, sorted by path; what is passed over is counted and named.

    Raises:
        SkillError: there is none.
    """
    files, passed_over = recordings(place)
    for reason, paths in passed_over.items():
        omissions.report(name, reason, paths)
    if not files:
        kinds = ", ".join(sorted(SUFFIXES))
        raise SkillError(f"corpus {name}: no audio file ({kinds}) in {place}")
    every_clip: list[Clip] = []
    unsaid: list[str] = []
    unreadable: list[str] = []
    for path in files:
        inside = path.relative_to(place)
        script = path.with_suffix(".txt")
        words = _text(script, unreadable)
        text = transcript(spell_out(words))
        if words.strip() and not text:
            unsaid.append(script.relative_to(place).as_posix())
        every_clip.append(Clip(
            f"{name}-{inside.as_posix()}",
            partial(_load, path),
            speaker=inside.parts[0] if len(inside.parts) > 1 else "",
            text=text,
            split=splits.by_text(text or inside.as_posix()),
        ))  # fmt: skip
    omissions.report(name, "transcripts that cannot be read (the audio stays)", unreadable)
    omissions.report(name, "transcripts that are no words in A-Z (the audio stays)", unsaid)
    return iter(every_clip)


def _text(script: Path, unreadable: list[str]) -> str:
    try:
        return read_text(script) if script.exists() else ""
    except SkillError as error:
        unreadable.append(str(error))
        return ""


def recordings(place: Path) -> tuple[list[Path], dict[str, list[str]]]:
    """Audio files below `place`, sorted, and what is passed over, by reason.

    Names that begin with a dot are no part of a corpus, and a `.txt` is a transcript.
    """
    files, passed_over = [], defaultdict(list)
    for path in sorted(place.rglob("*")):
        inside = path.relative_to(place)
        suffix = path.suffix.lower()
        if any(part[0] == "." for part in inside.parts) or (
            path.is_dir() and not path.is_symlink()
        ):
            continue
        relative = inside.as_posix()
        if not is_writable(relative):
            passed_over["names that a manifest cannot hold"].append(repr(relative))
        elif not path.is_file():
            passed_over["links to folders or to nothing, pipes, devices"].append(relative)
        elif suffix in SUFFIXES:
            files.append(path)
        elif suffix == ".txt":
            if not any(
                path.with_suffix(s).exists() for s in (*SUFFIXES, *map(str.upper, SUFFIXES))
            ):
                passed_over["transcripts of no recording"].append(relative)
        else:
            passed_over[f"of a kind that is not read ({suffix or 'no suffix'})"].append(relative)
    return files, dict(passed_over)


def _load(path: Path) -> tuple[Signal, int]:
    return require_sound(read_recording(path, BAND_RATE), path), BAND_RATE
