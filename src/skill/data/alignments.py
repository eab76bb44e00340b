"""Phone alignments of the sample corpora: a table that comes with the project, and its reader.

`tools/align.py` makes the table once by forced alignment. Each row is an utterance: its words in
order, each with the durations of its phones in frames of 10 ms, from the utterance's start without
gaps: `<sil>=SIL:12 you=Y:3 UW:5` becomes `<sil>=SIL12 you=Y3,UW5`.

Axes: T frames.
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skill.utils.errors import SkillError
from skill.utils.files import replacing

STEP = 160  # samples of a frame of the alignment, 10 ms
SILENCE = "SIL"
_PHONE = re.compile(r"([A-Z+]+)([0-9]{1,7})")
_COLUMNS = ["id", "words"]
_MOST_BYTES = 1 << 26  # of a table, unpacked


@dataclass(frozen=True, slots=True)
class Phone:
    """A phone of the dictionary (39 of CMUdict, SIL), with its first frame and its length."""

    name: str
    start: int
    frames: int


@dataclass(frozen=True, slots=True)
class Word:
    """A word as it is written, lower case, or `<sil>`, with its phones."""

    text: str
    phones: tuple[Phone, ...]


Alignments = dict[str, tuple[Word, ...]]


def write(path: Path, alignments: Alignments) -> None:
    """Write a gzipped table; the same alignments give the same bytes."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for utterance in sorted(alignments):
        rows.writerow([utterance, " ".join(map(_packed, alignments[utterance]))])
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(text.getvalue().encode(), 9, mtime=0))


def _packed(word: Word) -> str:
    return f"{word.text}={','.join(f'{phone.name}{phone.frames}' for phone in word.phones)}"


def read(path: Path) -> Alignments:
    """Read a table.

    Raises:
        SkillError: it is missing, too large or damaged; the message names the row.
    """
    try:
        with gzip.open(path) as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES >> 20} MiB")
        rows = list(csv.reader(io.StringIO(content.decode()), strict=True))
    except (OSError, EOFError, ValueError, zlib.error, csv.Error) as error:
        raise SkillError(f"{path}: not a readable table of alignments: {error}") from None
    if not rows or rows[0] != _COLUMNS:
        raise SkillError(f"{path}: the columns are not {', '.join(_COLUMNS)}")
    alignments: Alignments = {}
    for number, row in enumerate(rows[1:], 2):
        try:
            utterance, packed = row
            alignments[utterance] = _unpacked(packed)
        except ValueError:
            raise SkillError(f"{path}, row {number}: not an alignment") from None
    return alignments


def _unpacked(packed: str) -> tuple[Word, ...]:
    words, at = [], 0
    for part in packed.split(" "):
        text, _, rest = part.rpartition("=")
        phones = []
        for item in rest.split(","):
            match = _PHONE.fullmatch(item)
            if match is None:
                raise ValueError(item)
            phones.append(Phone(match[1], at, int(match[2])))
            at += int(match[2])
        words.append(Word(text, tuple(phones)))
    return tuple(words)


def phone_labels(
    words: Iterable[Word],
    phones: dict[str, int],
    samples: NDArray[np.integer] | NDArray[np.floating],
) -> NDArray[np.int64]:
    """The number of the phone at each of `samples` [T]; -1 where it is none of `phones`."""
    flat = [phone for word in words for phone in word.phones]
    names = np.array([phones.get(phone.name, -1) for phone in flat], dtype=np.int64)
    ends = np.cumsum([phone.frames for phone in flat])
    index = np.searchsorted(ends, samples // STEP, side="right")
    return np.where(index < len(names), names[np.minimum(index, len(names) - 1)], -1)
