"""The models of pretraining: spectrum regression first, then masked prediction.

Masked prediction is HuBERT's (Hsu et al. 2021, arXiv:2106.07447): the model predicts the cluster of
each masked frame from what surrounds the mask. With `mixing` an utterance is now and then overlaid
with a part of another one and still has to predict its own clusters (WavLM, Chen et al. 2021,
arXiv:2110.13900, section III-B). A middle layer also predicts each frame's spectrum (as TERA does,
Liu et al. 2021, arXiv:2007.06028): clusters of hours of speech say what is spoken and lose who
speaks. What is above that layer is free to lose it.

Axes: B utterances, S samples, T frames (20 ms), D width, C clusters, K spectral directions.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skill.data.fbank import log_mel
from skill.encoder import SpeechEncoder
from skill.training.loop import Micro

_TEMPERATURE = 0.1  # of the cosine logits, as in HuBERT
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

    def head(self, width: int) -> nn.Linear:
        """What predicts it from states of `width`."""
        return nn.Linear(width, self.whitening.shape[1])

    def forward(self, waveforms: Tensor, frames: int) -> Tensor:
        """[B, S] to [B, frames, K], one per 20 ms; the last is repeated where there are fewer."""
        energies = torch.stack([_levelled(waveform)[::2][:frames] for waveform in waveforms])
        missing = frames - energies.shape[1]
        if missing:
            energies = torch.cat([energies, energies[:, -1:].expand(-1, missing, -1)], 1)
        return (energies - self.mean) @ self.whitening


def _levelled(waveform: Tensor) -> Tensor:
    energies = log_mel(waveform)
    return energies - energies.mean()


class SpectrumRegression(nn.Module):
    """The convolutions and their projection learn to give the spectrum, by least squares.

    A cheap start: without it, masked prediction spends its first thousands of steps on finding a
    spectrum in the waveform.
    """

    def __init__(self, encoder: SpeechEncoder, spectrum: Spectrum, learning_rate: float) -> None:
        super().__init__()
        self.encoder, self.spectrum, self.learning_rate = encoder, spectrum, learning_rate
        self.head = spectrum.head(encoder.config.width)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """One group: the convolutions, the projection and the head."""
        learning = (self.encoder.feature_extractor, self.encoder.feature_projection, self.head)
        parameters = [p for module in learning for p in module.parameters()]
        return [{"params": parameters, "lr": self.learning_rate}]

    def begin_step(self, step: int) -> None:
        """Back to training, after a validation or a round's clustering."""
        self.train()

    def losses(self, micro: Micro, step: int) -> dict[str, Tensor]:
        """Mean squared error; about 1 is that of the mean spectrum."""
        projected, _ = self.encoder.project(micro.waveforms)
        target = self.spectrum(micro.waveforms, projected.shape[1])
        return {"loss": F.mse_loss(self.head(projected).float(), target)}


def mask_spans(shape: tuple[int, int], probability: float, span: int) -> Tensor:
    """Boolean mask [B, T]: spans of `span` frames start so that about `probability` is started.

    As in HuBERT: the number of starts is probability × T / span, starts are drawn without
    replacement and spans may overlap.
    """
    frames = shape[1]
    mask = torch.zeros(shape, dtype=torch.bool)
    starts = max(1, int(probability * frames / span + torch.rand(()).item()))
    for row in mask:
        for start in torch.randperm(max(1, frames - span + 1))[:starts].tolist():
            row[start : start + span] = True
    return mask


def mix(waveforms: Tensor, probability: float) -> Tensor:
    """Overlay some utterances with a part (at most half) of another one of the batch, [B, S].

    WavLM's utterance mixing: energy ratio uniform in −5…5 dB.
    """
    mixed = waveforms.clone()
    batch, samples = waveforms.shape
    for index in range(batch):
        if torch.rand(()) >= probability or batch < 2:
            continue
        other = waveforms[(index + int(torch.randint(1, batch, ()))) % batch]
        length = int(torch.randint(1, samples // 2 + 1, ()))
        source = int(torch.randint(0, samples - length + 1, ()))
        target = int(torch.randint(0, samples - length + 1, ()))
        part = other[source : source + length]
        energy = waveforms[index].square().mean() / part.square().mean().clamp(min=1e-8)
        ratio = 10 ** (torch.empty(()).uniform_(-5, 5) / 10)
        mixed[index, target : target + length] += part * (energy * ratio).sqrt()
    return mixed


class MaskedPrediction(nn.Module):
    """The encoder with a mask embedding and HuBERT's prediction head.

    The logit of cluster c at frame t is cos(A h_t, e_c) / 0.1.
    """

    def __init__(
        self,
        encoder: SpeechEncoder,
        clusters: int,
        spectrum: Spectrum,
        *,
        spectrum_layer: int,
        mixing: float,
        mask_probability: float,
        learning_rate: float,
    ) -> None:
        super().__init__()
        width = encoder.config.width
        self.encoder = encoder
        self.mask_embedding = nn.Parameter(torch.empty(width).uniform_())
        self.head = nn.Linear(width, width)
        self.clusters = nn.Parameter(torch.empty(clusters, width).normal_())
        self.spectrum, self.spectrum_head = spectrum, spectrum.head(width)
        self.spectrum_layer = spectrum_layer
        self.mixing, self.mask_probability = mixing, mask_probability
        self.learning_rate = learning_rate

    def parameter_groups(self) -> list[dict[str, Any]]:
        """One group: everything."""
        return [{"params": list(self.parameters()), "lr": self.learning_rate}]

    def begin_step(self, step: int) -> None:
        """Back to training, after a validation or a round's clustering."""
        self.train()

    def losses(self, micro: Micro, step: int) -> dict[str, Tensor]:
        """Clusters' cross entropy plus the spectrum's squared error; `micro.extra`: labels [B, T].

        Both on masked and on seen frames, half each: HuBERT's loss with α = 0.5 (its section II-C).
        With little audio the masked frames alone leave the model at the clusters' frequencies for
        thousands of steps. The spectrum is the utterance's own, whatever is mixed into it.
        """
        waveforms = mix(micro.waveforms, self.mixing) if self.training else micro.waveforms
        projected, _ = self.encoder.project(waveforms)
        labels = micro.extra[:, : projected.shape[1]]
        mask = mask_spans((len(labels), labels.shape[1]), self.mask_probability, span=10)
        x = torch.where(mask[..., None], self.mask_embedding.to(projected.dtype), projected)
        states = dict(self.encoder.transform(x))
        logits = self.logits(states[self.encoder.config.num_blocks])
        masked = F.cross_entropy(logits[mask], labels[mask])
        seen = F.cross_entropy(logits[~mask], labels[~mask])
        right = logits.argmax(-1) == labels
        target = self.spectrum(micro.waveforms, labels.shape[1])
        predicted = self.spectrum_head(states[self.spectrum_layer]).float()
        error = (predicted - target).square().mean(-1)
        spectrum = (error[mask].mean() + error[~mask].mean()) / 2
        return {
            "loss": (masked + seen) / 2 + spectrum,
            "masked_loss": masked.detach(),
            "masked_accuracy": right[mask].float().mean(),
            "seen_accuracy": right[~mask].float().mean(),
            "spectrum_loss": spectrum.detach(),
        }

    def logits(self, states: Tensor) -> Tensor:
        """[…, D] to […, C]."""
        head = F.normalize(self.head(states).float(), dim=-1)
        return head @ F.normalize(self.clusters, dim=-1).t() / _TEMPERATURE
