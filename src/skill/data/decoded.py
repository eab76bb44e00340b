"""Audio files decoded once to 16-bit samples and mapped into memory: an option for slow decoders.

Where the environment variable SKILL_DECODED names a folder, a file of 16-bit audio is decoded into
it the first time that it is read, and from then on read without decoding. The samples are the same
to the bit. An hour of speech takes 115 MB. A source file that changes is decoded again.

Legend: S samples at 16 kHz.
"""

import hashlib
import os
import sys
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from skill.utils.errors import SkillError
from skill.utils.files import replacing

_OPEN_MAPS = 64
_BLOCK = 1 << 20
_lock = threading.Lock()
_full = False
_maps: OrderedDict[Path, NDArray[np.int16]] = OrderedDict()


def samples(path: Path, file: soundfile.SoundFile) -> NDArray[np.int16] | None:
    """All samples [S] of an opened mono file, mapped.

    None: no folder is named, it cannot be written (which is said once), or the file is not 16-bit.

    Raises:
        LibsndfileError: the file is damaged.
        SkillError: it ends too early.
    """
    global _full
    folder = os.environ.get("SKILL_DECODED")
    if not folder or _full or file.subtype != "PCM_16":
        return None
    facts = path.stat()
    name = f"{path.resolve()} {facts.st_size} {facts.st_mtime_ns}"
    place = Path(folder) / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.s16"
    with _lock:
        if place in _maps:
            _maps.move_to_end(place)
            return _maps[place]
        if not place.exists():
            try:
                _decode(path, place)
            except SkillError as error:
                if not isinstance(error.__cause__, OSError):
                    raise
                print(f"warning: SKILL_DECODED is not used: {error}", file=sys.stderr, flush=True)
                _full = True
                return None
        found = np.memmap(place, np.int16, "r")
        _maps[place] = found
        while len(_maps) > _OPEN_MAPS:
            _maps.popitem(last=False)
        return found


def _decode(path: Path, place: Path) -> None:
    with (
        soundfile.SoundFile(path) as source,
        replacing(place) as temporary,
        temporary.open("wb") as sink,
    ):
        while len(block := source.read(_BLOCK, dtype="int16")):
            sink.write(block.tobytes())
        if sink.tell() != 2 * source.frames:
            raise SkillError(f"{path}: truncated: not all of its {source.frames} samples are there")
