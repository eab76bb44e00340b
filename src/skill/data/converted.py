"""Recordings that are not 16 kHz mono: other rates, several channels, MP3.

Corpora that stay where they are are read through here. `start` and `samples` of their manifests
count samples at 16 kHz, after the conversion.

Legend: S samples at 16 kHz.
"""

from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from skill.data import audio
from skill.data.manifest import RATE, Utterance
from skill.utils.errors import SkillError

_TOLERANCE = RATE // 10  # what decoders of MP3 may disagree about at the end of a file


def samples(path: Path) -> int:
    """The length [S] of a recording, from its header.

    Raises:
        SkillError: it is not readable as audio.
    """
    info = _info(path)
    return round(info.frames * RATE / info.samplerate)


def whole(path: Path) -> NDArray[np.float32]:
    """A whole recording [S], channels averaged, resampled.

    Raises:
        SkillError: it is not readable as audio, or holds values that are no numbers.
    """
    try:
        found, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise SkillError(f"{path}: not readable as audio: {error}") from error
    signal: NDArray[np.float32] = found.mean(axis=1, dtype=np.float32)
    if not np.isfinite(signal).all():
        raise SkillError(f"{path}: a sample is not a number")
    return signal if rate == RATE else soxr.resample(signal, rate, RATE)


def read(utterance: Utterance) -> NDArray[np.float32]:
    """The samples [S] of an utterance, whatever its file's rate, channels and format.

    Raises:
        SkillError: as `skill.data.audio.read`, but other rates and channels are converted.
    """
    path = audio.locate(utterance)
    if not path.is_file():
        return audio.read(utterance)  # which says what is missing
    info = _info(path)
    if (info.samplerate, info.channels) == (RATE, 1) and info.format != "MP3":
        return audio.read(utterance)
    part = whole(path)[utterance.start : utterance.start + utterance.samples]
    lacking = utterance.samples - len(part)
    if lacking > _TOLERANCE:
        raise SkillError(
            f"{path}, utterance {utterance.id}: {len(part)} of {utterance.samples} samples are "
            "there: truncated"
        )
    return np.pad(part, (0, lacking))


def _info(path: Path) -> soundfile._SoundFileInfo:
    try:
        return soundfile.info(path)
    except (soundfile.LibsndfileError, OSError) as error:
        raise SkillError(f"{path}: not readable as audio: {error}") from error
