"""Synthetic speech of espeak-ng, the last resort where no recording can be had.

The library and its data come with the optional package espeakng-loader (the library is GPL-3, so it
is used in a process of its own). Calls inside one process influence each other; so every utterance
has its own process, and its bytes are the same every time.

Split: by text; every voice says every sentence.
"""

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from itertools import product

import numpy as np

from skill.corpora import splits
from skill.corpora.clips import Clip, Signal
from skill.corpora.text import transcript
from skill.errors import SkillError

_VOICES = tuple(
    f"{accent}+{variant}"
    for accent in ("en-us", "en-gb")
    for variant in ("m1", "m3", "m5", "m7", "f1", "f2", "f3", "f4")
)
_WHO = ("the pilot", "an old friend", "nobody")
_DOES = ("found", "has never seen", "is looking for", "will remember")
_WHAT = ("the key to the garden", "a letter from home", "that strange music")
_SECONDS = 60
_RETRIEVAL, _UTF8, _NO_ERROR = 1, 1, 0

_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def clips(name: str) -> Iterator[Clip]:
    """Every sentence of the templates in every voice."""
    sentences = [" ".join(words) for words in product(_WHO, _DOES, _WHAT)]
    for voice in _VOICES:
        for index, sentence in enumerate(sentences):
            text = transcript(sentence)
            yield Clip(
                f"{name}-espeak-{voice}-{index:03d}",
                partial(_spoken, sentence, voice),
                speaker=voice,
                text=text,
                split=splits.by_text(text),
            )


def _spoken(sentence: str, voice: str) -> tuple[Signal, int]:
    command = [sys.executable, "-m", "skill.corpora.espeak", voice, sentence]
    done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
    if done.returncode or len(done.stdout) < 4:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise SkillError(f"espeak-ng could not say {sentence!r} as {voice}: {said}")
    values = np.frombuffer(done.stdout, dtype="<i2")
    return values[2:].astype(np.float32) / np.float32(32768), int(values[:2].view("<i4")[0])


def _say(voice: str, sentence: str) -> bytes:
    """Rate (32 bits), then samples (16 bits each), little-endian."""
    import espeakng_loader

    library = ctypes.CDLL(str(espeakng_loader.get_library_path()))
    data = str(espeakng_loader.get_data_path()).encode()
    parts: list[bytes] = []

    def keep(samples: "ctypes._Pointer[ctypes.c_short]", count: int, _: object) -> int:
        if samples and count > 0:
            parts.append(ctypes.string_at(samples, 2 * count))
        return 0

    callback = _Callback(keep)
    rate = library.espeak_Initialize(_RETRIEVAL, 0, data, 0)
    if rate <= 0:
        raise SystemExit("espeak_Initialize failed")
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(voice.encode()) != _NO_ERROR:
        raise SystemExit(f"no voice {voice}")
    text = sentence.encode() + b"\0"
    library.espeak_Synth(text, ctypes.c_size_t(len(text)), 0, 1, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    return int(rate).to_bytes(4, "little") + b"".join(parts)


if __name__ == "__main__":
    sys.stdout.buffer.write(_say(sys.argv[1], sys.argv[2]))
