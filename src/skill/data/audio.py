"""Reading the samples of an utterance.

Files stay open, per thread and process: a corpus is one large file, and a manifest's rows are
places in it. Reading two and a half seconds out of a FLAC of hours takes half a millisecond;
`skill.data.decoded` can spare even that.

Legend: S samples at 16 kHz.
"""

import os
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from skill.data import decoded
from skill.data.manifest import RATE, Utterance
from skill.utils.errors import SkillError

_OPEN_FILES = 8
_local = threading.local()


def locate(utterance: Utterance) -> Path:
    """The file of `utterance`: below the working directory, else below SKILL_CORPORA."""
    path = Path(utterance.path)
    if path.is_absolute() or path.exists():
        return path
    root = os.environ.get("SKILL_CORPORA")
    return Path(root) / path if root else path


def read(utterance: Utterance, start: int = 0, samples: int | None = None) -> NDArray[np.float32]:
    """`samples` of `utterance` (default: all) from `start` on, as [S] in -1…1.

    Raises:
        SkillError: the file is missing, truncated, not audio, not 16 kHz mono, or holds values that
            are no numbers; the message names the file and the utterance.
    """
    wanted = utterance.samples - start if samples is None else samples
    if start < 0 or wanted <= 0 or start + wanted > utterance.samples:
        raise ValueError(f"samples {start}…{start + wanted} are outside utterance {utterance.id}")
    path = locate(utterance)
    where = f"{path}, utterance {utterance.id}"
    file = _opened(path, where)
    first = utterance.start + start
    try:
        if first + wanted > file.frames:
            raise SkillError(
                f"{where}: truncated: the file ends at sample {file.frames}, not {first + wanted}"
            )
        whole = decoded.samples(path, file)
        signal: NDArray[np.float32]
        if whole is None:
            file.seek(first)
            signal = file.read(wanted, dtype="float32")
        else:
            signal = whole[first : first + wanted] * np.float32(1 / 32768)
    except soundfile.LibsndfileError as error:
        _forget(path)
        raise SkillError(f"{where}: not readable as audio: {error.error_string}") from error
    if len(signal) != wanted:
        raise SkillError(f"{where}: {len(signal)} of {wanted} samples are there: truncated")
    if not np.isfinite(signal).all():
        raise SkillError(f"{where}: a sample is not a number")
    return signal


def _files() -> OrderedDict[Path, soundfile.SoundFile]:
    """This thread's open files; none are shared with a forked process."""
    if getattr(_local, "process", None) != os.getpid():
        _local.process, _local.files = os.getpid(), OrderedDict()
    files: OrderedDict[Path, soundfile.SoundFile] = _local.files
    return files


def _opened(path: Path, where: str) -> soundfile.SoundFile:
    files = _files()
    if path in files:
        files.move_to_end(path)
        return files[path]
    if not path.is_file():
        hint = "" if os.environ.get("SKILL_CORPORA") else " (SKILL_CORPORA is not set)"
        raise SkillError(f"{where}: the file is missing{hint}")
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        raise SkillError(f"{where}: not readable as audio: {error.error_string}") from error
    if (file.samplerate, file.channels) != (RATE, 1):
        rate, channels = file.samplerate, file.channels
        file.close()
        raise SkillError(f"{where}: {rate} Hz and {channels} channel(s), not 16000 Hz mono")
    files[path] = file
    while len(files) > _OPEN_FILES:
        files.popitem(last=False)[1].close()
    return file


def _forget(path: Path) -> None:
    file = _files().pop(path, None)
    if file is not None:
        file.close()
