"""Generated speech-like audio for tests: no package, no network, the same bytes every time.

A sentence is a row of words of a small lexicon, a word a row of phones, and a phone a pulse train
or noise through two resonances. A speaker is a pitch and a vocal tract length. It is no speech, but
every task has its labels: phones, words, speakers, phrases said by many.

Split: by text; every speaker says every sentence.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
from scipy.signal import lfilter

from skill.data import splits
from skill.data.corpora.clips import BAND_RATE, Clip, Signal

# word: its phones, as in the CMU dictionary
_LEXICON = {
    "SEE": "S IY",
    "MOON": "M UW N",
    "SAW": "S AO",
    "ME": "M IY",
    "NOON": "N UW N",
    "SHE": "SH IY",
    "LAW": "L AO",
    "KNEE": "N IY",
    "SHOE": "SH UW",
    "SEAM": "S IY M",
    "LAWN": "L AO N",
    "SEAL": "S IY L",
}
# phone: the first two resonances in Hz, voiced or not, seconds
_PHONES = {
    "IY": (280, 2250, True, 0.14),
    "UW": (310, 870, True, 0.14),
    "AO": (570, 840, True, 0.16),
    "M": (250, 1100, True, 0.09),
    "N": (250, 1700, True, 0.09),
    "L": (360, 1300, True, 0.08),
    "S": (3800, 4800, False, 0.11),
    "SH": (2300, 3400, False, 0.11),
}
_BANDWIDTH = 120.0
_GAP = 0.06


def clips(name: str, speakers: int, sentences: int) -> Iterator[Clip]:
    """All `sentences` in the voices of all `speakers`, clips of one to three words."""
    texts = sentences_of(sentences)
    for speaker in range(speakers):
        for index, text in enumerate(texts):
            yield Clip(
                f"{name}-{speaker:02d}-{index:03d}",
                partial(_spoken, text, speaker, index),
                speaker=f"voice{speaker:02d}",
                text=text,
                split=splits.by_text(text),
            )


def sentences_of(count: int) -> list[str]:
    """`count` different sentences, each split among the first dozen."""
    words = sorted(_LEXICON)
    generator = np.random.default_rng(0)
    texts: dict[str, None] = {}
    while len(texts) < count:
        text = " ".join(generator.choice(words, generator.integers(1, 4)))
        place = len(texts) % 6
        split = {0: "dev", 1: "test"}.get(place, "train")
        if splits.by_text(text) == split:
            texts[text] = None
    return list(texts)


def _spoken(text: str, speaker: int, index: int) -> tuple[Signal, int]:
    generator = np.random.default_rng([speaker, index])
    pitch = 85 * 1.13 ** (speaker % 9) * generator.uniform(0.97, 1.03)
    tract = 1 + 0.05 * (speaker % 5 - 2)
    silence = np.zeros(round(_GAP * BAND_RATE))
    parts = [silence]
    for word in text.split():
        parts += [_phone(phone, pitch, tract, generator) for phone in _LEXICON[word].split()]
        parts.append(silence)
    signal = np.concatenate(parts)
    signal += generator.normal(0, 1e-3, len(signal))
    return signal.astype(np.float32), BAND_RATE


def _phone(
    phone: str, pitch: float, tract: float, generator: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    first, second, voiced, seconds = _PHONES[phone]
    size = round(seconds * generator.uniform(0.85, 1.15) * BAND_RATE)
    if voiced:
        phase = np.cumsum(np.full(size, pitch / BAND_RATE) * np.linspace(1.05, 0.95, size))
        source = np.diff(np.floor(phase), prepend=0.0)
    else:
        source = generator.normal(0, 0.1, size)
    for centre in (first * tract, second * tract):
        radius = np.exp(-np.pi * _BANDWIDTH / BAND_RATE)
        angle = 2 * np.pi * min(centre, 0.48 * BAND_RATE) / BAND_RATE
        source = lfilter([1.0], [1.0, -2 * radius * np.cos(angle), radius**2], source)
    edge = min(size // 4, 100)
    window = np.ones(size)
    window[:edge], window[size - edge :] = np.linspace(0, 1, edge), np.linspace(1, 0, edge)
    shaped = source * window
    return 0.25 * shaped / max(float(np.abs(shaped).max()), 1e-9)
