"""Masked prediction (HuBERT, Hsu et al. 2021, arXiv:2106.07447), to make the sample teachers.

Axes: B utterances, T frames (20 ms), D width, N frames of a corpus, C clusters.

The model predicts the cluster of each masked frame from what surrounds the mask. Round 1 takes the
clusters from k-means of MFCC, round 2 from k-means of a middle layer of round 1's model, which goes
on training. With `mixing` an utterance is now and then overlaid with a part of another one and still
has to predict its own clusters (WavLM, Chen et al. 2021, arXiv:2110.13900, section III-B).

Unlike HuBERT, round 2 starts from round 1's weights instead of from nothing: with hours of audio
instead of a thousand, the shorter way is the better one.
"""

from pathlib import Path
from typing import Any

import kaldi_native_fbank
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn

from skill.encoder import EncoderConfig, SpeechEncoder
from skill.training import Micro

HOP = 320  # samples per frame
_TEMPERATURE = 0.1  # of the cosine logits, as in HuBERT


def mfcc(waveform: np.ndarray) -> np.ndarray:
    """39 values per 20 ms frame: 13 MFCC with their first and second differences, [T, 39].

    Windows of 25 ms from the utterance's start, the receptive field of the encoder's frames.
    """
    options = kaldi_native_fbank.MfccOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.frame_shift_ms = 10.0
    options.mel_opts.num_bins = 23
    options.num_ceps = 13
    computer = kaldi_native_fbank.OnlineMfcc(options)
    computer.accept_waveform(16000, (waveform * 32768.0).tolist())
    computer.input_finished()
    static = np.array([computer.get_frame(i) for i in range(computer.num_frames_ready)])
    first = np.gradient(static, axis=0)
    return np.concatenate([static, first, np.gradient(first, axis=0)], axis=1)[::2]


def mask_spans(shape: tuple[int, int], probability: float, span: int) -> Tensor:
    """Boolean mask [B, T]: spans of `span` frames start so that about `probability` is started.

    As in HuBERT: the number of starts is probability × T / span, starts are drawn without
    replacement and spans may overlap.
    """
    batch, frames = shape
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
        config: EncoderConfig,
        clusters: int,
        *,
        mixing: float,
        mask_probability: float,
        learning_rate: float,
    ) -> None:
        super().__init__()
        self.encoder = SpeechEncoder(config)
        self.mask_embedding = nn.Parameter(torch.empty(config.width).uniform_())
        self.head = nn.Linear(config.width, config.width)
        self.clusters = nn.Parameter(torch.empty(clusters, config.width).normal_())
        self.mixing, self.mask_probability = mixing, mask_probability
        self.learning_rate = learning_rate

    def parameter_groups(self) -> list[dict[str, Any]]:
        """One group: everything."""
        return [{"params": list(self.parameters()), "lr": self.learning_rate}]

    def begin_step(self, step: int) -> None:
        """Nothing depends on the step."""

    def losses(self, micro: Micro, step: int) -> dict[str, Tensor]:
        """Cross entropy on the masked frames; `micro.extra` holds the labels [B, T]."""
        waveforms = mix(micro.waveforms, self.mixing) if self.training else micro.waveforms
        projected, _ = self.encoder.project(waveforms)
        labels = micro.extra[:, : projected.shape[1]]
        mask = mask_spans((len(labels), labels.shape[1]), self.mask_probability, span=10)
        x = torch.where(mask[..., None], self.mask_embedding.to(projected.dtype), projected)
        for _, state in self.encoder.transform(x):
            last = state
        logits = self.logits(last[mask])
        targets = labels[mask]
        return {
            "loss": F.cross_entropy(logits, targets),
            "accuracy": (logits.argmax(-1) == targets).float().mean().detach(),
        }

    def logits(self, states: Tensor) -> Tensor:
        """[N, D] to [N, C]."""
        head = F.normalize(self.head(states).float(), dim=-1)
        return head @ F.normalize(self.clusters, dim=-1).t() / _TEMPERATURE


def fit_clusters(features: np.ndarray, clusters: int, seed: int) -> MiniBatchKMeans:
    """k-means of feature vectors [N, D]."""
    model = MiniBatchKMeans(
        clusters, batch_size=10_000, n_init=3, max_iter=50, random_state=seed, compute_labels=False
    )
    return model.fit(features.astype(np.float32))


@torch.no_grad()
def layer_features(encoder: SpeechEncoder, waveform: np.ndarray, layer: int) -> np.ndarray:
    """State `layer` of one utterance, [T, D]."""
    for name, state in encoder.iterate(torch.from_numpy(waveform)[None]):
        if name == layer:
            return state[0].float().numpy()
    raise ValueError(f"the encoder has no state {layer}")


def checkpoint_folder(scratch: Path, teacher: str, round_number: int) -> Path:
    """Where a round keeps its checkpoints."""
    return scratch / "pretrain" / teacher / f"round{round_number}"
