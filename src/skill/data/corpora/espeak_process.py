"""One utterance of espeak-ng: `espeak_process.py LIBRARY DATA VOICE RATE PITCH RANGE VOLUME TEXT`.

A process of its own, because the library is GPL-3 and calls inside one process influence each
other. Imports no package, so that it starts quickly. Writes the rate (32 bits), then the samples
(16 bits each), little-endian. A value of 0 keeps the voice's own.
"""

import ctypes
import sys

_RETRIEVAL, _UTF8, _NO_ERROR = 1, 1, 0
_PARAMETERS = (1, 3, 4, 2)  # espeakRATE, PITCH, RANGE, VOLUME
_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def say(place: str, data: str, voice: str, style: tuple[int, ...], sentence: str) -> bytes:
    """The bytes that this program writes."""
    library = ctypes.CDLL(place)
    parts: list[bytes] = []

    def keep(samples: "ctypes._Pointer[ctypes.c_short]", count: int, _: object) -> int:
        if samples and count > 0:
            parts.append(ctypes.string_at(samples, 2 * count))
        return 0

    callback = _Callback(keep)
    rate = library.espeak_Initialize(_RETRIEVAL, 0, data.encode(), 0)
    if rate <= 0:
        raise SystemExit("espeak_Initialize failed")
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(voice.encode()) != _NO_ERROR:
        raise SystemExit(f"no voice {voice}")
    for parameter, value in zip(_PARAMETERS, style, strict=True):
        if value and library.espeak_SetParameter(parameter, value, 0) != _NO_ERROR:
            raise SystemExit(f"parameter {parameter} cannot be {value}")
    text = sentence.encode() + b"\0"
    library.espeak_Synth(text, ctypes.c_size_t(len(text)), 0, 1, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    return int(rate).to_bytes(4, "little") + b"".join(parts)


if __name__ == "__main__":
    _, place, data, voice, *style, sentence = sys.argv
    sys.stdout.buffer.write(say(place, data, voice, tuple(map(int, style)), sentence))
