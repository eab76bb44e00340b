"""A clip as its source gives it, and how it becomes 16 kHz speech of one common bandwidth.

Bandwidth leaks the corpus: some sources end at 5.5 kHz (sampled at 11.025 kHz), others reach 8 kHz,
and a model, or a speaker classifier, would hear which corpus it is instead of what is said. So
everything passes through 11.025 kHz on its way to 16 kHz.

Legend: S samples.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

from skill.data.audio import Signal
from skill.data.manifest import RATE

BAND_RATE = 11_025
SHORTEST = 0.3  # seconds; shorter clips are left out
LONGEST = 15.0  # seconds; longer clips are cut at their pauses
_FIRST_CUT = 5.0
_FRAME = 0.02
_FRAMES_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class Clip:
    """One recording: `load` gives its samples (float32, mono or [S, channels]) and their rate."""

    id: str
    load: Callable[[], tuple[Signal, int]]
    speaker: str = ""
    language: str = "en"
    text: str = ""
    split: str = "train"


def band_limit(signal: Signal, rate: int) -> Signal:
    """`signal` [S] or [S, channels] at `rate` as mono [S] at `BAND_RATE`."""
    mono = signal if signal.ndim == 1 else signal.mean(axis=1, dtype=np.float32)
    return mono if rate == BAND_RATE else soxr.resample(mono, rate, BAND_RATE)


def split_at_pauses(
    signal: Signal, rate: int, longest: float = LONGEST, earliest: float = _FIRST_CUT
) -> list[Signal]:
    """`signal` at `rate` in pieces of at most `longest` seconds, cut where it is quietest.

    A piece that is cut has `earliest` seconds at least. Quiet: the energy of a fifth of a second.
    """
    limit, frame = round(longest * rate), int(_FRAME * rate)
    if len(signal) <= limit:
        return [signal]
    block = _FRAMES_AT_ONCE * frame
    energy = [_energies(signal[i : i + block], frame) for i in range(0, len(signal), block)]
    smooth = np.convolve(np.concatenate(energy), np.ones(11), "same")
    pieces, at = [], 0
    while len(signal) - at > limit:
        first = int((at + min(earliest, longest / 2) * rate) / frame)
        last = int((at + limit) / frame)
        cut = (first + int(np.argmin(smooth[first:last]))) * frame
        pieces.append(signal[at:cut])
        at = cut
    return [*pieces, signal[at:]]


def _energies(signal: Signal, frame: int) -> NDArray[np.float64]:
    squares = np.square(signal, dtype=np.float64)
    return np.add.reduceat(squares, np.arange(0, len(signal), frame))


def to_pcm(signal: Signal) -> NDArray[np.int16]:
    """`signal` at `BAND_RATE` as 16-bit samples at 16 kHz; peaks beyond full scale are clipped."""
    wide = soxr.resample(signal, BAND_RATE, RATE)
    return np.rint(np.clip(wide, -1, 32767 / 32768) * 32768).astype(np.int16)
