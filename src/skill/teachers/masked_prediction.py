"""Masked prediction, the way in which the sample teachers learn.

As HuBERT (Hsu et al. 2021, arXiv:2106.07447): the model predicts the cluster of each masked frame
from what surrounds the mask. Here several blocks may predict, each something else, and a target may
be vectors instead of clusters. With `mixing` an utterance is now and then overlaid with a part of
another one and still has to predict its own targets (WavLM, Chen et al. 2021, arXiv:2110.13900,
section III-B); with `noise` it is overlaid with coloured noise.

Axes: B utterances, S samples, T frames (20 ms), D width, C clusters, K dimensions of a target.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skill.config.pretraining import PretrainingTarget
from skill.data.batches import Batch
from skill.encoder import SpeechEncoder
from skill.teachers.spectrum import Spectrum

_TEMPERATURE = 0.1  # of the cosine logits, as in HuBERT
_RATIO = (5.0, 20.0)  # dB, of speech to noise


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


def add_noise(waveforms: Tensor, probability: float) -> Tensor:
    """Add noise to some utterances [B, S]: spectrum falling as f^-a, a in 0…2, at 5…20 dB."""
    noisy = waveforms.clone()
    samples = waveforms.shape[1]
    for index in range(len(waveforms)):
        if torch.rand(()) >= probability:
            continue
        colour = float(torch.empty(()).uniform_(0, 2))
        bins = torch.fft.rfft(torch.randn(samples))
        bins *= torch.arange(1, len(bins) + 1) ** (-colour / 2)
        noise = torch.fft.irfft(bins, samples)
        ratio = 10 ** (torch.empty(()).uniform_(*_RATIO) / 10)
        energy = waveforms[index].square().mean() / noise.square().mean() / ratio
        noisy[index] += noise * energy.sqrt()
    return noisy


class ClusterHead(nn.Module):
    """HuBERT's: the logit of cluster c at a frame of state h is cos(A h, e_c) / 0.1."""

    def __init__(self, width: int, clusters: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, width)
        self.clusters = nn.Parameter(torch.empty(clusters, width).normal_())

    def forward(self, states: Tensor) -> Tensor:
        """[…, D] to [..., C]."""
        head = F.normalize(self.projection(states).float(), dim=-1)
        return head @ F.normalize(self.clusters, dim=-1).t() / _TEMPERATURE

    def errors(self, states: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross entropy of every frame, and whether the best cluster is the right one; [B, T]."""
        logits = self(states)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        return loss.view(labels.shape), (logits.argmax(-1) == labels).float()


class StateHead(nn.Module):
    """A linear map to vectors [K]."""

    def __init__(self, width: int, dimensions: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, dimensions)

    def errors(self, states: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared error of every frame (1: that of the mean vector), twice; [B, T]."""
        error = (self.projection(states).float() - target.float()).square().mean(-1)
        return error, error.detach()


class MaskedPrediction(nn.Module):
    """The encoder with a mask embedding and one head per target."""

    def __init__(
        self,
        encoder: SpeechEncoder,
        targets: Sequence[PretrainingTarget],
        dimensions: Sequence[int],
        spectrum: Spectrum,
        *,
        mixing: float,
        noise: float,
        mask_probability: float,
        learning_rate: float,
    ) -> None:
        """`dimensions`: K of each target that is predicted by regression; of others unused."""
        super().__init__()
        width = encoder.config.width
        self.encoder, self.spectrum, self.targets = encoder, spectrum, tuple(targets)
        self.mask_embedding = nn.Parameter(torch.empty(width).uniform_())
        self.heads = nn.ModuleList(
            StateHead(width, size)
            if target.clusters is None
            else ClusterHead(width, target.clusters)
            for target, size in zip(targets, dimensions, strict=True)
        )
        self.mixing, self.noise, self.mask_probability = mixing, noise, mask_probability
        self.learning_rate = learning_rate

    def parameter_groups(self) -> list[dict[str, Any]]:
        """One group: everything."""
        return [{"params": list(self.parameters()), "lr": self.learning_rate}]

    def hand_over(self) -> dict[str, Any]:
        """What a later round can go on with: the mask embedding, and heads by their target."""
        heads = zip(self.targets, self.heads, strict=True)
        return {"mask_embedding": self.mask_embedding.detach().clone()} | {
            title(target): head.state_dict()
            for target, head in heads
            if target.features != "model"  # the clusters of the next round are other ones
        }

    @torch.no_grad()
    def take_over(self, carried: dict[str, Any]) -> None:
        """The inverse, for targets that both rounds have."""
        if "mask_embedding" in carried:
            self.mask_embedding.copy_(carried["mask_embedding"])
        for target, head in zip(self.targets, self.heads, strict=True):
            state = carried.get(title(target))
            if state is not None and state.keys() == head.state_dict().keys():
                head.load_state_dict(state)

    def begin_step(self, step: int) -> None:
        """Back to training, after a validation or a round's clustering."""
        self.train()

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The targets' losses, weighted, on masked and on seen frames, half each.

        That is HuBERT's loss with α = 0.5 (its section II-C): with little audio the masked frames
        alone leave the model at the clusters' frequencies for thousands of steps. What is mixed in
        changes no target. `batch.targets`: for each target its labels [B, T] or vectors [B, T, K];
        None for the spectrum.
        """
        waveforms = batch.waveforms
        if self.training:
            waveforms = add_noise(mix(waveforms, self.mixing), self.noise)
        projected, _ = self.encoder.project(waveforms)
        frames = projected.shape[1]
        mask = mask_spans((len(projected), frames), self.mask_probability, span=10)
        x = torch.where(mask[..., None], self.mask_embedding.to(projected.dtype), projected)
        states = dict(self.encoder.transform(x))
        figures: dict[str, Tensor] = {}
        loss = torch.zeros(())
        for target, head, wanted in zip(self.targets, self.heads, batch.targets, strict=True):
            if target.features == "spectrum":
                wanted = self.spectrum(batch.waveforms, frames)
            at = self.encoder.config.num_blocks if target.at is None else target.at
            error, figure = head.errors(states[at], wanted)  # type: ignore[operator]
            loss = loss + target.weight * (error[mask].mean() + error[~mask].mean()) / 2
            label = title(target)
            figures[f"{label}_masked"] = figure[mask].mean()
            figures[f"{label}_seen"] = figure[~mask].mean()
        return {"loss": loss} | figures

    def validation_losses(self, batch: Batch) -> dict[str, Tensor]:
        """The same, with nothing mixed in."""
        return self.losses(batch, 0)


def title(target: PretrainingTarget) -> str:
    """What a target is called in a curve; figures are accuracies of clusters, errors of others."""
    source = target.encoder or target.features or ""
    layer = "" if target.layer is None else f"-{target.layer}"
    kind = "error" if target.clusters is None else f"{target.clusters}_accuracy"
    at = "" if target.at is None else f"@{target.at}"
    return f"{source}{layer}{at}_{kind}"
