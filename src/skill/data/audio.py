"""The one way that recordings are read: by corpora, tasks, training and `predict` alike.

A recording is any regular file that libsndfile decodes, of 4 to 384 kHz, at most 64 channels and
three hours. Channels are averaged and the rate is converted, block by block, so that no file takes
more memory than its length at the wanted rate. What is damaged, cut short or holds values that are
no numbers is refused. Samples beyond full scale are scaled back; samples that plainly count in
integers (speech times 32768) become what they stand for.

Slices of 16 kHz mono files of integer samples are read in place: a corpus is one large file, and
two and a half seconds out of a FLAC of hours take half a millisecond. Such files stay open, per
thread and process.

Legend: S samples at the wanted rate, 16 kHz if nothing else is said.
"""

import os
import re
import sys
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from skill.data.manifest import LONGEST_SECONDS, RATE, Utterance
from skill.utils.errors import SkillError

Signal = NDArray[np.float32]
SUFFIXES = frozenset((".flac", ".wav", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff"))
_RATES = (4_000, 384_000)
_MOST_CHANNELS = 64
_BLOCK = 1 << 20  # values that are decoded at once, over all channels
_OPEN_FILES = 8
_TOLERANCE = RATE // 10  # what decoders of MP3 may disagree about at the end of a file
_BOUNDED = ("PCM_", "ULAW", "ALAW")  # kinds of files whose samples cannot exceed full scale
_SILENT = 1e-4  # root mean square; full scale is 1
# libsndfile reads what is there of a truncated file, and remarks on it: WAV, AIFF; Ogg
_LENGTHS = re.compile(r"(?:data|SSND)\s*:\s*(\d+) \(should be (\d+)\)")
_UNKNOWN_LENGTH = 0x7FFFFFFF  # bytes: programs that write into a pipe say so much, or more
_NO_END = "lacks an end-of-stream bit"
_LEAST_SHARE = 0.9  # of the frames that an MP3 says it has, which may be an estimate
_EXACT_FLOATS = ("FLOAT", "DOUBLE")
_OVERSHOOT = 1.5  # peaks that lossy decoders add; they stay, as with other tools
_MODERATE_PEAK = 8.0
_INTEGERS = (1 << 15, 1 << 23, 1 << 31)  # full scale of integer samples
_LOUD = 8.0  # mean absolute value above which samples count in integers
_local = threading.local()
_reported: set[Path] = set()


def locate(utterance: Utterance) -> Path:
    """The file of `utterance`: below the working directory, else below SKILL_CORPORA."""
    path = Path(utterance.path)
    if path.is_absolute() or path.exists():
        return path
    root = os.environ.get("SKILL_CORPORA")
    return Path(root) / path if root else path


def recording_length(path: Path) -> int:
    """The length [S] of a recording, from its header; one of floats is read, too.

    Raises:
        SkillError: it is no recording that `read_recording` would take, as far as a header tells:
            floats may be no numbers.
    """
    with _opened(path, str(path)) as file:
        if file.subtype in _EXACT_FLOATS:
            return len(read_recording(path))
        return round(file.frames * RATE / file.samplerate)


def read_recording(path: Path, rate: int = RATE, where: str = "") -> Signal:
    """A whole recording [S] at `rate` in -1…1, channels averaged.

    Raises:
        SkillError: no such file, not readable as audio, too long, truncated, or values that are no
            numbers; the message names `where`, or the file.
    """
    where = where or str(path)
    with _opened(path, where) as file:
        try:
            signal = _converted(file, rate, where)
        except (RuntimeError, OSError) as error:
            raise SkillError(f"{where}: not readable as audio: {_reason(error)}") from error
        if file.frames and len(signal) < _LEAST_SHARE * (file.frames * rate / file.samplerate) - 1:
            raise SkillError(f"{where}: truncated: there is less audio than its header says")
        return (
            signal
            if file.subtype.startswith(_BOUNDED)
            else _scaled(signal, path, where, 1.0 if file.subtype in _EXACT_FLOATS else _OVERSHOOT)
        )


def read_segment(utterance: Utterance, start: int = 0, samples: int | None = None) -> Signal:
    """`samples` of `utterance` (default: all) from `start` on, as [S] in -1…1.

    Raises:
        SkillError: as `read_recording`, or the file is shorter than the manifest says; the message
            names the file and the utterance.
    """
    count = utterance.samples - start if samples is None else samples
    if start < 0 or count <= 0 or start + count > utterance.samples:
        raise ValueError(f"samples {start}…{start + count} are outside utterance {utterance.id}")
    path, first = locate(utterance), utterance.start + start
    where = f"{path}, utterance {utterance.id}"
    file = _kept_open(path, where)
    if file is None:
        signal = read_recording(path, where=where)[first : first + count]
        missing = count - len(signal)
        if missing > min(_TOLERANCE, count - 1):
            raise SkillError(f"{where}: truncated: {len(signal)} of {count} samples are there")
        return np.pad(signal, (0, missing))
    if first + count > file.frames:
        raise SkillError(
            f"{where}: truncated: the file ends at sample {file.frames}, not {first + count}"
        )
    try:
        file.seek(first)
        signal = file.read(count, dtype="float32")
    except (RuntimeError, OSError) as error:
        _close(path)
        raise SkillError(f"{where}: not readable as audio: {_reason(error)}") from error
    if len(signal) != count:
        raise SkillError(f"{where}: truncated: {len(signal)} of {count} samples are there")
    return signal


def require_sound(signal: Signal, where: object) -> Signal:
    """`signal` itself.

    Raises:
        SkillError: it is silent.
    """
    if float(np.sqrt(np.mean(np.square(signal)))) < _SILENT:
        raise SkillError(f"{where}: the recording is silent")
    return signal


def _opened(path: Path, where: str) -> soundfile.SoundFile:
    """An open recording that is within the bounds and, by what its header says, whole."""
    if not path.is_file():
        if path.exists():
            kind = "a folder" if path.is_dir() else "no regular file"
            raise SkillError(f"{where}: is {kind}, not a recording")
        raise SkillError(f"{where}: the file is missing")
    if not os.access(path, os.R_OK):
        raise SkillError(f"{where}: no permission to read it")
    try:
        file = soundfile.SoundFile(path)
    except (RuntimeError, OSError, TypeError, ValueError) as error:
        raise SkillError(f"{where}: not readable as audio: {_reason(error)}") from error
    problem = _out_of_bounds(file)
    if problem:
        file.close()
        raise SkillError(f"{where}: {problem}")
    return file


def _out_of_bounds(file: soundfile.SoundFile) -> str:
    slowest, fastest = _RATES
    if not slowest <= file.samplerate <= fastest:
        return f"{file.samplerate} Hz is not within {slowest} to {fastest} Hz"
    if file.channels > _MOST_CHANNELS:
        return f"{file.channels} channels are more than {_MOST_CHANNELS}"
    if file.frames <= 0:
        return "no audio in it"
    remarks = file.extra_info
    short = [int(n) < int(stated) < _UNKNOWN_LENGTH for stated, n in _LENGTHS.findall(remarks)]
    if any(short) or _NO_END in remarks:
        return "truncated: there is less audio than its header says"
    return ""


def _converted(file: soundfile.SoundFile, rate: int, where: str) -> Signal:
    """[S]: decoded, averaged over channels and resampled in blocks."""
    seconds = file.frames / file.samplerate
    too_long = f"{where}: longer than {LONGEST_SECONDS / 3600:g} hours"
    if seconds > LONGEST_SECONDS:
        raise SkillError(f"{too_long}, by its header")
    resampler = (
        None if file.samplerate == rate else
        soxr.ResampleStream(file.samplerate, rate, 1, dtype="float32")
    )  # fmt: skip
    parts, decoded = [], 0
    while True:
        block = file.read(max(1, _BLOCK // file.channels), dtype="float32", always_2d=True)
        decoded += len(block)
        if decoded > LONGEST_SECONDS * file.samplerate:  # of a header that gave less
            raise SkillError(too_long)
        with np.errstate(invalid="ignore"):
            mono = block.mean(axis=1, dtype=np.float32)
        if not np.isfinite(mono).all():
            raise SkillError(f"{where}: a sample is not a number")
        last = not len(block)
        parts.append(mono if resampler is None else resampler.resample_chunk(mono, last=last))
        if last:
            return np.concatenate(parts)


def _scaled(signal: Signal, path: Path, where: str, highest: float) -> Signal:
    """`signal` within -1…1, by what its samples plainly count in."""
    peak = float(np.abs(signal).max(initial=0.0))
    if peak <= highest:
        return signal
    scale = peak
    if peak > _MODERATE_PEAK:
        fitting = [full for full in _INTEGERS if peak <= 2 * full]
        if not fitting or float(np.abs(signal).mean(dtype=np.float64)) < _LOUD:
            raise SkillError(f"{where}: its samples reach {peak:.3g}; full scale is 1")
        scale = max(fitting[0], peak)
    if path not in _reported and scale > 1.5:
        _reported.add(path)
        print(f"{path}: samples reach {peak:.3g} and are divided by {scale:.6g}", file=sys.stderr)
    return signal / np.float32(scale)


def _reason(error: BaseException) -> str:
    return str(getattr(error, "error_string", "") or error)


def _files() -> "OrderedDict[Path, soundfile.SoundFile | None]":
    """This thread's open files; none are shared with a forked process."""
    if getattr(_local, "process", None) != os.getpid():
        _local.process, _local.files = os.getpid(), OrderedDict()
    files: OrderedDict[Path, soundfile.SoundFile | None] = _local.files
    return files


def _kept_open(path: Path, where: str) -> soundfile.SoundFile | None:
    """The open file where slices can be read in place; None where it has to be converted."""
    files = _files()
    if path in files:
        files.move_to_end(path)
        return files[path]
    if not (path.exists() or path.is_absolute() or os.environ.get("SKILL_CORPORA")):
        raise SkillError(f"{where}: the file is missing (SKILL_CORPORA is not set)")
    file = _opened(path, where)
    in_place = (
        (file.samplerate, file.channels) == (RATE, 1)
        and file.subtype.startswith(_BOUNDED)
        and file.seekable()
    )
    if not in_place:
        file.close()
    files[path] = file if in_place else None
    while len(files) > _OPEN_FILES:
        _close(next(iter(files)))
    return files[path]


def _close(path: Path) -> None:
    file = _files().pop(path, None)
    if file is not None:
        file.close()
