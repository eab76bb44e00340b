"""The voices of Hedgewars: the same short phrases in 15 voice packs, for keyword spotting.

The text is the phrase that the file is named after, in capitals without spaces; what is said may
be worded differently. Packs whose names end in a language code say it in that language, so a task
of spoken phrases takes those with `language` en: ten voices.
Split: by speaker (voice pack), so that the voices of dev and test are heard in no training.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath

from skill.data import splits
from skill.data.audio import read_recording
from skill.data.corpora.clips import BAND_RATE, Clip, Signal

PACKAGE = "hedgewars-data"
_MARK = "/Sounds/voices/"
_LANGUAGES = {"es": "es", "pl": "pl", "ru": "ru", "uk": "uk"}


def clips(files: Mapping[str, Path]) -> Iterator[Clip]:
    """All voice clips, sorted by pack and phrase."""
    named = {}
    for inside, path in files.items():
        pack, phrase = PurePosixPath(inside.partition(_MARK)[2]).with_suffix("").parts
        named[pack, phrase] = path
    split = splits.by_speaker(pack for pack, _ in named)
    for (pack, phrase), path in sorted(named.items()):
        yield Clip(
            f"hedgewars-{pack}-{phrase}",
            partial(_load, path),
            speaker=pack.lower(),
            language=_LANGUAGES.get(pack.rpartition("_")[2], "en"),
            text="".join(letter for letter in phrase.upper() if letter.isalnum()),
            split=split[pack],
        )


def _load(path: Path) -> tuple[Signal, int]:
    return read_recording(path, BAND_RATE), BAND_RATE
