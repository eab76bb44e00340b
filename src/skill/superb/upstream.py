"""Upstreams: a frozen encoder, or FBANK, turns waveforms into hidden states.

Legend: L states, T frames, D width, S samples.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skill.data import fbank
from skill.encoder import SpeechEncoder
from skill.encoder.checkpoint import load_encoder
from skill.encoder.inference import hidden_states
from skill.superb.examples import Waveform
from skill.training.exactness import Subject
from skill.training.machine_check import choose_precision, findings_folder
from skill.training.precision import autocast, computed


class Upstream(Protocol):
    """Anything that gives states for waveforms."""

    states: int
    width: int
    hop: int  # samples per frame
    device: torch.device

    def frames(self, samples: int) -> int: ...

    def centres(self, frames: int) -> NDArray[np.floating]:
        """The sample that each of so many frames is centred on, [T]."""
        ...

    def __call__(self, waveforms: Sequence[Waveform]) -> list[Tensor]:
        """One tensor [L, T, D] per waveform [S]."""
        ...


class Fbank:
    """Kaldi log-mel energies with differences, as an upstream of one state at 100 Hz.

    `cmvn`: mean and variance are normalised per utterance.
    """

    states, width, hop = 1, fbank.WIDTH, fbank.HOP
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # of the heads

    def __init__(self, cmvn: bool = False) -> None:
        self.cmvn = cmvn

    def frames(self, samples: int) -> int:
        return fbank.frames(samples)

    def centres(self, frames: int) -> NDArray[np.floating]:
        return fbank.WINDOW / 2 + fbank.HOP * np.arange(frames)

    def __call__(self, waveforms: Sequence[Waveform]) -> list[Tensor]:
        features = [fbank.fbank(torch.from_numpy(waveform)) for waveform in waveforms]
        return [(fbank.normalize(f) if self.cmvn else f)[None] for f in features]


class Encoder:
    """A frozen `SpeechEncoder`; a batch's padding changes nothing (`exact_padding`)."""

    def __init__(self, encoder: SpeechEncoder, precision: str = "float32") -> None:
        self.encoder = encoder.eval().requires_grad_(False)
        self.encoder.exact_padding = True
        self.states = encoder.config.num_blocks + 1
        self.width = encoder.config.width
        self.hop = encoder.config.hop
        self.device = next(encoder.parameters()).device
        self.precision = computed(precision, self.device.type)

    def frames(self, samples: int) -> int:
        return int(self.encoder.frames(samples))

    def centres(self, frames: int) -> NDArray[np.floating]:
        return self.encoder.config.receptive_field / 2 + self.hop * np.arange(frames)

    def __call__(self, waveforms: Sequence[Waveform]) -> list[Tensor]:
        with autocast(self.precision, self.device.type):
            return hidden_states(self.encoder, waveforms)


def load_upstream(
    source: str | Path | None,
    precision: str = "float32",
    fbank_cmvn: bool = False,
    clip: Waveform | None = None,
    scratch: Path | None = None,
) -> Upstream:
    """The encoder stored in a file or folder; None is FBANK, normalised per utterance or not.

    Args:
        precision: to compute in; "auto" needs a `clip`, and is float32 without one.
        clip: speech that the encoder is tried on first (`skill.training.machine_check`).
        scratch: the job's scratch folder, where the result of that is kept.

    Raises:
        SkillError: no encoder, or a machine that computes it wrongly.
    """
    if source is None:
        return Fbank(fbank_cmvn)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = load_encoder(source).to(device)
    if clip is not None:
        folder = None if scratch is None else findings_folder(scratch)
        name = Path(source).stem
        precision = choose_precision(name, [Subject(name, encoder)], clip, precision, folder)
    return Encoder(encoder, precision)
