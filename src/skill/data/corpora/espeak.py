"""Synthetic speech of espeak-ng, the last resort where no recording can be had.

The library and its data come with the optional package espeakng-loader. Every utterance has a
process of its own (`skill.data.corpora.espeak_process`), and its bytes are the same every time.

Split: by text; every voice says every sentence.
"""

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from skill.data import splits
from skill.data.corpora.clips import Clip, Signal
from skill.data.transcripts import transcript
from skill.utils.errors import SkillError

_VOICES = tuple(
    f"{accent}+{variant}"
    for accent in ("en-us", "en-gb-x-rp")
    for variant in ("m1", "m3", "m5", "m7", "f1", "f2", "f3", "f4")
)
_WHO = ("the pilot", "an old friend", "nobody", "my brother")
_DOES = ("found", "has never seen", "is looking for", "will remember")
_WHAT = ("the key to the garden", "a letter from home", "that strange music", "the last boat")
_SECONDS = 60


def clips(name: str) -> Iterator[Clip]:
    """Every sentence of the templates in every voice."""
    sentences = [" ".join(words) for words in product(_WHO, _DOES, _WHAT)]
    for voice in _VOICES:
        for index, sentence in enumerate(sentences):
            text = transcript(sentence)
            yield Clip(
                f"{name}-espeak-{voice}-{index:03d}",
                partial(speak, sentence, voice),
                speaker=voice,
                text=text,
                split=splits.by_text(text),
            )


class Style(NamedTuple):
    """Words a minute, pitch and its range (0…99), loudness (100: normal); 0: the voice's own."""

    rate: int = 0
    pitch: int = 0
    range: int = 0
    volume: int = 0


def speak(sentence: str, voice: str, style: Style | None = None) -> tuple[Signal, int]:
    """Samples [S] and their rate.

    Raises:
        SkillError: espeak-ng is not there, or has no such voice.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise SkillError("espeak-ng is missing: pip install espeakng-loader") from error
    places = espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
    program = Path(__file__).with_name("espeak_process.py")
    values = [*places, voice, *(style or Style()), sentence]
    command = [sys.executable, "-S", "-E", str(program), *map(str, values)]
    process = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
    if process.returncode or len(process.stdout) < 4:
        message = process.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise SkillError(f"espeak-ng could not say {sentence!r} as {voice}: {message}")
    samples = np.frombuffer(process.stdout, dtype="<i2")
    return samples[2:].astype(np.float32) / np.float32(32768), int(samples[:2].view("<i4")[0])
