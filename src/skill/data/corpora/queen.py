"""Flight of the Amazon Queen: acted English speech with its script and the characters' names.

The game's single file `queen.1c` is a table of files. Speech is `*.SB` (bare MP3); the script is in
`*.DOG` (dialogues), `*.CUT` (cut scenes) and `QUEEN2.JAS` (Joe's remarks). Texts hold commands of
`*` and two characters (faces, gestures, pauses); the hero's voice actor made one clip of every
stretch between two commands, and a clip's name ends with that stretch's number, counted from 1:

* `ddiiiiPn`, `ddiiiiJn`: dialogue number dd, text iiii (hexadecimal), said by the other person or
  by Joe. `SSSS` is Joe's first greeting, `XXXX` the greeting when they meet again.
* `JOEnnnnx`: Joe's remark nnnn, stretch x. The first 40 are the stock answers of `QUEEN2.JAS`.
* `Cname##n`: cut scene file, text ##, stretch n; who speaks is not written down.

Other clips (`…SSS`: noises) are left out. All clips have 11.025 kHz. The recordings are loud, and
decoding overshoots; they are scaled by 0.7. Split: by text, every character in each.

Legend of offsets: in bytes, from the start of a file or of its bank (which begins 20 bytes later).
"""

import io
import re
import struct
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from skill.data import splits
from skill.data.corpora.clips import Clip, Signal
from skill.data.transcripts import transcript
from skill.utils.errors import SkillError

PACKAGE = "flight-of-the-amazon-queen"
PATH = "usr/share/scummvm/flight-of-the-amazon-queen/queen.1c"

_GAIN = np.float32(0.7)
_BANK = 20
_ENTRY = struct.Struct(">12sBII")
_SPEECH = re.compile(r"[0-9]{2}([0-9A-F]{4}|S{4}|X{4})[PJ][0-9A-F]|JOE[0-9]{5}|C.*|BLUEP[0-9]{3}")
_DIALOGUE = re.compile(r"(\d\d)([0-9A-F]{4}|S{4}|X{4})([PJ])([0-9A-F])")
_SCENE = re.compile(r"(C.{4}|BLUEP)(\d\d)([0-9A-F])")
_COMMAND = re.compile(r"\*XY\d*\(\d+,\d+\)|\*..")
_STOCK_ANSWERS = (1187, 40)  # zero-based line of QUEEN2.JAS, number of them
_LEVEL_BYTES = 96

Texts = dict[str, tuple[str, str]]


class Container:
    """The files inside `queen.1c`, by name."""

    def __init__(self, path: Path) -> None:
        self.path, self.data = path, path.read_bytes()
        if self.data[:4] != b"QTBL" or len(self.data) < 15:
            raise SkillError(f"{path}: not a QTBL container")
        (count,) = struct.unpack_from(">H", self.data, 13)
        self.entries: dict[str, tuple[int, int]] = {}
        if len(self.data) < 15 + count * _ENTRY.size:
            raise SkillError(f"{path}: truncated: its table names {count} files")
        for index in range(count):
            name, _, offset, size = _ENTRY.unpack_from(self.data, 15 + index * _ENTRY.size)
            key = name.rstrip(b"\0 ").decode("latin-1")
            if offset + size > len(self.data):
                raise SkillError(f"{path}: truncated: {key} ends behind the end of the file")
            self.entries[key] = (offset, size)

    def __getitem__(self, name: str) -> bytes:
        offset, size = self.entries[name]
        return self.data[offset : offset + size]

    def named(self, suffix: str) -> list[str]:
        """Names that end with `suffix`, sorted, without it."""
        return sorted(n.removesuffix(suffix) for n in self.entries if n.endswith(suffix))


def clips(files: Mapping[str, Path]) -> Iterator[Clip]:
    """All speech clips, sorted by name."""
    container = Container(files[PATH])
    texts = script(container)
    for name in container.named(".SB"):
        if not _SPEECH.fullmatch(name):
            continue
        speaker, line = texts.get(name, ("", ""))
        if name.startswith("JOE") or (_DIALOGUE.fullmatch(name) and name[6] == "J"):
            speaker = "joe"
        text = transcript(line)
        yield Clip(
            f"queen-{name}",
            partial(_decoded, container, name),
            speaker=speaker,
            text=text,
            split=splits.by_text(text or name),
        )


def _decoded(container: Container, name: str) -> tuple[Signal, int]:
    signal, rate = soundfile.read(io.BytesIO(container[f"{name}.SB"]), dtype="float32")
    return signal * _GAIN, rate


def script(container: Container) -> Texts:
    """Speaker (where known) and text of every clip that the script covers."""
    return {
        **_dialogues(container),
        **_scenes(container),
        **_remarks(container),
    }


def stretches(text: str) -> list[str]:
    """What is said between the commands of `text`, empty stretches included."""
    return [part.strip() for part in _COMMAND.split(text)]


def _part(text: str, number: int) -> str:
    parts = stretches(text)
    return parts[number - 1] if 0 < number <= len(parts) else ""


def _dialogues(container: Container) -> Texts:
    """A dialogue bank: 32 bytes, 96 per level, Joe's texts, the other's; 4-byte alignment."""
    lines: dict[tuple[int, str, str], list[tuple[str, str]]] = {}
    for stem in container.named(".DOG"):
        bank = container[f"{stem}.DOG"][_BANK:]
        levels, _, number, joes, others = struct.unpack_from(">5h", bank)
        (second,) = struct.unpack_from(">H", bank, 22)
        person = stem.rstrip("0123456789").lower()
        for letter, start, count in (
            ("J", 32 + _LEVEL_BYTES * abs(levels), joes),
            ("P", second, others),
        ):
            for index, (key, text) in enumerate(_numbered(bank, start, count)):
                name, said_by = f"{key:04X}", letter
                if key == 0 and index == 0:
                    name, said_by = ("SSSS" if letter == "J" else "XXXX"), "J"
                speaker = "joe" if said_by == "J" else person
                lines.setdefault((number, name, said_by), []).append((speaker, text))
    texts: Texts = {}
    for clip in container.named(".SB"):
        if match := _DIALOGUE.fullmatch(clip):
            candidates = lines.get((int(match[1]), match[2], match[3]), [])
            if len(candidates) == 1:  # twice the same number: which was recorded is not known
                texts[clip] = (candidates[0][0], _part(candidates[0][1], int(match[4], 16)))
    return texts


def _numbered(bank: bytes, at: int, count: int) -> Iterator[tuple[int, str]]:
    for _ in range(count):
        key, length = struct.unpack_from(">IB", bank, at)
        yield key, bank[at + 5 : at + 5 + length].decode("latin-1")
        at += 5 + length
        at += -at % 4


def _scenes(container: Container) -> Texts:
    """A cut scene's bank: number of texts, and where they begin; 2-byte alignment from text 1."""
    texts: Texts = {}
    scenes: dict[str, list[str]] = {}
    for stem in container.named(".CUT"):
        bank = container[f"{stem}.CUT"][_BANK:]
        count, at = abs(struct.unpack_from(">h", bank, 2)[0]), struct.unpack_from(">H", bank, 8)[0]
        lines = []
        for index in range(count + 1):
            length = bank[at] if at < len(bank) else 0
            lines.append(bank[at + 1 : at + 1 + length].decode("latin-1"))
            at += 1 + length
            if index or length:
                at += at % 2
        scenes[stem] = lines
    for clip in container.named(".SB"):
        if match := _SCENE.fullmatch(clip):
            lines = scenes.get(match[1].rstrip("_"), [])
            index = int(match[2])
            if index < len(lines):
                texts[clip] = ("", _part(lines[index], int(match[3], 16)))
    return texts


def _remarks(container: Container) -> Texts:
    lines = container["QUEEN2.JAS"].decode("latin-1").splitlines()
    first, stock = _STOCK_ANSWERS
    texts: Texts = {}
    for clip in container.named(".SB"):
        if match := re.fullmatch(r"JOE(\d{4})(\d)", clip):
            number = int(match[1])
            index = first + number - 1 if number <= stock else number - stock - 1
            if index < len(lines):
                texts[clip] = ("joe", _part(lines[index], int(match[2])))
    return texts
