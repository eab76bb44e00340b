"""What sox does to the recordings of some SUPERB tasks before an upstream hears them.

Speech Commands and QUESST14: `gain -3`. VoxCeleb1 in speaker verification, training and trials:
`gain -3 silence 1 0.1 0.1% -1 0.1 0.1%`, which cuts the silence before speech and every silence
within. (Identification hears the recordings as they are.)

Legend: S samples at 16 kHz.
"""

import numpy as np
from numpy.typing import NDArray

from skill.data.manifest import RATE

Signal = NDArray[np.float32]
_GAIN = np.float32(10 ** (-3 / 20))
_WINDOW = RATE // 50
_DURATION = RATE // 10
_THRESHOLD = 0.001  # root mean square, of full scale


def attenuate(signal: Signal) -> Signal:
    """[S] 3 dB lower."""
    return signal * _GAIN


def attenuate_and_trim(signal: Signal) -> Signal:
    """[S] to [S']: 3 dB lower and without its silences."""
    return trim_silence(attenuate(signal))


def trim_silence(signal: Signal) -> Signal:
    """[S] to [S'] as sox's `silence 1 0.1 0.1% -1 0.1 0.1%`.

    Loudness is the root mean square of the last 20 ms. Sound begins with 0.1 s that are louder than
    the threshold throughout, and is kept from their start on; it ends with 0.1 s that are not,
    which are dropped; then the search begins anew and the 20 ms are zeros again.
    """
    energy = np.concatenate([[0.0], np.cumsum(np.square(signal, dtype=np.float64))])
    parts: list[Signal] = []
    at = 0
    while at < len(signal):
        ends = np.arange(at + 1, len(signal) + 1)
        inside = energy[ends] - energy[np.maximum(ends - _WINDOW, at)]
        loud = inside > _WINDOW * _THRESHOLD**2
        first = _first_run(loud, 0)
        if first is None:
            break
        last = _first_run(~loud, first + _DURATION)
        if last is None:
            parts.append(signal[at + first :])
            break
        parts.append(signal[at + first : at + last])
        at += last + _DURATION
    return np.concatenate(parts) if parts else signal[:0]


def _first_run(flags: NDArray[np.bool_], start: int) -> int | None:
    """Where, from `start` on, `flags` first stay true for `_DURATION`."""
    edges = np.flatnonzero(np.diff(flags[start:].astype(np.int8), prepend=0, append=0))
    begins, ends = edges[::2], edges[1::2]
    long = np.flatnonzero(ends - begins >= _DURATION)
    return start + int(begins[long[0]]) if len(long) else None
