"""The spectrum as a target: the convolutions' first, and a block's beside its clusters.

As TERA does (Liu et al. 2021, arXiv:2007.06028): clusters of hours of speech say what is spoken and
lose who speaks. What is above the block that predicts the spectrum is free to lose it.

Axes: B utterances, S samples, T frames (20 ms), K spectral directions.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skill.data.batches import Batch
from skill.data.fbank import log_mel
from skill.encoder import SpeechEncoder

_DIRECTIONS = 40  # K: the others are the waveform's noise, and whitening would make it as loud
_FLATTEST = 1e-4  # of the largest variance: directions below it are not made larger


class Spectrum(nn.Module):
    """The leading directions of log-mel energies, whitened: each counts alike.

    Voices differ in directions of little variance, which plain energies would hide. The mean energy
    of each utterance is taken off, as the encoder's group norm does.
    """

    mean: Tensor
    whitening: Tensor

    def __init__(self, waveforms: Iterable[Tensor]) -> None:
        """Mean and covariance are those of `waveforms`, each [S]."""
        super().__init__()
        energies = torch.cat([_levelled(waveform) for waveform in waveforms]).double()
        variances, directions = torch.linalg.eigh(torch.cov(energies.t()))
        scale = variances.clamp(min=_FLATTEST * float(variances[-1])).rsqrt()
        whitening = (directions * scale)[:, -_DIRECTIONS:]
        self.register_buffer("mean", energies.mean(0).float())
        self.register_buffer("whitening", whitening.float())

    @property
    def directions(self) -> int:
        """K."""
        return int(self.whitening.shape[1])

    def forward(self, waveforms: Tensor, frames: int) -> Tensor:
        """[B, S] to [B, frames, K], one per 20 ms; the last is repeated where there are fewer."""
        energies = torch.stack([_levelled(waveform)[::2][:frames] for waveform in waveforms])
        missing = frames - energies.shape[1]
        if missing:
            energies = torch.cat([energies, energies[:, -1:].expand(-1, missing, -1)], 1)
        return (energies - self.mean) @ self.whitening


def _levelled(waveform: Tensor) -> Tensor:
    energies = log_mel(waveform).to(waveform.device)
    return energies - energies.mean()


class SpectrumRegression(nn.Module):
    """The convolutions and their projection learn to give the spectrum, by least squares.

    A cheap start: without it, masked prediction spends its first thousands of steps on finding a
    spectrum in the waveform.
    """

    def __init__(self, encoder: SpeechEncoder, spectrum: Spectrum, learning_rate: float) -> None:
        super().__init__()
        self.encoder, self.spectrum, self.learning_rate = encoder, spectrum, learning_rate
        self.head = nn.Linear(encoder.config.width, spectrum.directions)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """One group: the convolutions, the projection and the head."""
        learning = (self.encoder.feature_extractor, self.encoder.feature_projection, self.head)
        parameters = [p for module in learning for p in module.parameters()]
        return [{"params": parameters, "lr": self.learning_rate}]

    def begin_step(self, step: int) -> None:
        """Back to training, after a validation or a round's clustering."""
        self.train()

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Mean squared error; about 1 is that of the mean spectrum."""
        projected, _ = self.encoder.project(batch.waveforms)
        target = self.spectrum(batch.waveforms, projected.shape[1])
        return {"loss": F.mse_loss(self.head(projected).float(), target)}

    def validation_losses(self, batch: Batch) -> dict[str, Tensor]:
        """The same."""
        return self.losses(batch, 0)
