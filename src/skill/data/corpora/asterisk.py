"""The telephone prompts of Asterisk: five languages, one professional voice each.

The sounds are G.722 at 64 kbit/s (true 16 kHz), the transcripts a text file of `name: text` lines.
Tones, silence and screaming monkeys are left out. Split: by text.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from skill.data import splits
from skill.data.corpora.clips import Clip, Signal
from skill.data.manifest import LONGEST_SECONDS
from skill.data.transcripts import transcript
from skill.utils.errors import SkillError
from skill.utils.text import read_lines

LANGUAGES = ("en", "es", "fr", "it", "ru")
PACKAGES = tuple(f"asterisk-core-sounds-{lang}{end}" for lang in LANGUAGES for end in ("-g722", ""))
_BYTES_PER_SECOND = 8000

_TONES = ("ascending-2tone", "descending-2tone", "beep", "beeperr")
_NOISES = frozenset((*_TONES, "confbridge-join", "confbridge-leave", "tt-monkeys"))


def clips(files: Mapping[str, Mapping[str, Path]]) -> Iterator[Clip]:
    """All prompts, sorted by language and name. `files`: package to path inside to path here."""
    for language in LANGUAGES:
        sounds = files[f"asterisk-core-sounds-{language}-g722"]
        (script,) = files[f"asterisk-core-sounds-{language}"].values()
        texts = transcripts(script)
        named = {}
        for inside, path in sounds.items():
            voice, *rest = PurePosixPath(inside.partition("/sounds/")[2]).with_suffix("").parts
            named["/".join(rest)] = (voice, path)
        for name, (voice, path) in sorted(named.items()):
            if name.startswith("silence/") or name in _NOISES or path.stat().st_size == 0:
                continue
            text = transcript(texts.get(name, ""), language)
            yield Clip(
                f"asterisk-{language}-{name}",
                partial(decoded, path),
                speaker=voice.lower(),
                language=language,
                text=text,
                split=splits.by_text(f"{language} {text or name}"),
            )


def transcripts(path: Path) -> dict[str, str]:
    """Texts by name from a `core-sounds-XX.txt`; `;` begins a comment."""
    pairs = (line.partition(":") for line in read_lines(path) if not line.startswith(";"))
    return {name.strip(): text.strip() for name, colon, text in pairs if colon}


def decoded(path: Path) -> tuple[Signal, int]:
    """The samples [S] of a bare G.722 file, and their rate.

    Raises:
        SkillError: it is too long, or no such file.
    """
    import av

    if path.is_file() and path.stat().st_size > LONGEST_SECONDS * _BYTES_PER_SECOND:
        raise SkillError(f"{path}: longer than {LONGEST_SECONDS / 3600:g} hours")
    try:
        with av.open(str(path), format="g722") as file:
            frames = [frame.to_ndarray().ravel() for frame in file.decode(audio=0)]
    except av.FFmpegError as error:
        raise SkillError(f"{path}: not readable as G.722: {error}") from error
    if not frames:
        raise SkillError(f"{path}: no audio in it")
    return np.concatenate(frames).astype(np.float32) / np.float32(32768), 16_000
