"""Masked prediction (HuBERT, Hsu et al. 2021, arXiv:2106.07447), to make the sample teachers.

Axes: B utterances, T frames (20 ms), D width, N frames of a corpus, C clusters.

The model predicts the cluster of each masked frame from what surrounds the mask. Round 1 takes the
clusters from k-means of MFCC, round 2 from k-means of a middle layer of round 1's model, which goes
on training. With `mixing` an utterance is now and then overlaid with a part of another one and
still has to predict its own clusters (WavLM, Chen et al. 2021, arXiv:2110.13900, section III-B).

Unlike HuBERT, round 2 starts from round 1's weights instead of from nothing: with hours of audio
instead of a thousand, the shorter way is the better one.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import kaldi_native_fbank
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn

from skill.corpora.audio import read
from skill.corpora.batches import Batches, MicroBatch, collate
from skill.corpora.loader import Loader
from skill.corpora.manifest import Utterance, usable
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.files import canonical_json, replacing, sha256, write_tensors
from skill.params import PretrainingJob, Training
from skill.progress import track
from skill.provenance import fingerprint, stamp
from skill.training import Micro, Outcome, seed_step, train

HOP = 320  # samples per frame
_TEMPERATURE = 0.1  # of the cosine logits, as in HuBERT
_SHARE = 0.2  # of all frames, that k-means is fitted on
_VALIDATION_BATCHES = 8


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
        """Cross entropy on masked and on seen frames, half each; `micro.extra`: labels [B, T].

        HuBERT's loss with α = 0.5 (its section II-C). With little audio the masked frames alone
        leave the model at the clusters' frequencies for thousands of steps.
        """
        waveforms = mix(micro.waveforms, self.mixing) if self.training else micro.waveforms
        projected, _ = self.encoder.project(waveforms)
        labels = micro.extra[:, : projected.shape[1]]
        mask = mask_spans((len(labels), labels.shape[1]), self.mask_probability, span=10)
        x = torch.where(mask[..., None], self.mask_embedding.to(projected.dtype), projected)
        for _, state in self.encoder.transform(x):
            last = state
        logits = self.logits(last)
        masked = F.cross_entropy(logits[mask], labels[mask])
        seen = F.cross_entropy(logits[~mask], labels[~mask])
        right = logits.argmax(-1) == labels
        return {
            "loss": (masked + seen) / 2,
            "masked_loss": masked.detach(),
            "masked_accuracy": right[mask].float().mean(),
            "seen_accuracy": right[~mask].float().mean(),
        }

    def logits(self, states: Tensor) -> Tensor:
        """[…, D] to […, C]."""
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


def run(
    name: str, job: PretrainingJob, manifests: Sequence[Path], output: Path, scratch: Path
) -> None:
    """The verb `pretrain`: both rounds, each resumed where it was stopped; writes an encoder file.

    Raises:
        SkillError: no audio, or a loss that is not finite.
    """
    section = job.pretraining
    config = EncoderConfig.uniform(
        section.family,
        width=section.width,
        blocks=section.blocks,
        heads=section.heads,
        ffn=section.ffn,
        conv=section.conv_channels,
    )
    shortest, longest = job.unlabelled.min_seconds, job.unlabelled.max_seconds
    utterances = {split: usable(manifests, shortest, longest, split) for split in ("train", "dev")}
    dependencies = canonical_json(
        [job.model_dump(mode="json"), {str(p): sha256(p) for p in manifests}, fingerprint(__name__)]
    )
    previous: MaskedPrediction | None = None
    for number, training in enumerate(section.rounds, start=1):
        labels = _labels(
            scratch / f"clusters{number}.npz", utterances, previous, job, number, dependencies
        )
        seed_step(section.seed, number)
        model = MaskedPrediction(
            config,
            section.clusters[number - 1],
            mixing=section.mixing,
            mask_probability=section.mask_probability,
            learning_rate=training.learning_rate,
        )
        if previous is not None:
            model.encoder.load_state_dict(previous.encoder.state_dict())
            model.mask_embedding.data.copy_(previous.mask_embedding.data)
        outcome = _round(
            f"{name} round {number}",
            model,
            training,
            utterances,
            labels,
            section.seed + number,
            scratch / f"round{number}",
            f"{number} {dependencies}",
        )
        previous = model
    assert previous is not None
    half = {key: value.half() for key, value in previous.encoder.state_dict().items()}
    header = {
        "kind": "encoder",
        "config": config.to_dict(),
        "provenance": stamp(manifests, job)
        | {
            "command": f"python -m skill pretrain {name}",
            "validation": {k: v for k, v in outcome.curve[-1].items() if "validation" in k},
        },
    }
    write_tensors(output, half, header)


def _round(
    label: str,
    model: MaskedPrediction,
    training: Training,
    utterances: dict[str, list[Utterance]],
    labels: dict[str, np.ndarray],
    seed: int,
    folder: Path,
    dependencies: str,
) -> Outcome:
    """One round of masked prediction."""
    options = {"micro_seconds": training.micro_seconds}
    batches = Batches(utterances["train"], training.batch_seconds, seed, **options)  # type: ignore[arg-type]
    held_out = Batches(utterances["dev"], training.micro_seconds, 0)

    def micro(batch: MicroBatch, waveforms: Tensor, lengths: Tensor) -> Micro:
        targets = _aligned(batch, labels, model.encoder.frames(waveforms.shape[1]))
        return Micro([u.id for u in batch.utterances], waveforms, lengths, targets)

    def load(first: int) -> Iterator[tuple[int, list[Micro]]]:
        with Loader(batches, first, workers=1) as loader:
            for step, loaded in loader:
                yield step, [micro(*part) for part in loaded]

    fixed = [
        micro(part, *collate(part))
        for step in range(min(_VALIDATION_BATCHES, len(held_out)))
        for part in held_out.at(step)
    ]

    @torch.no_grad()
    def validate() -> dict[str, float]:
        model.eval()
        with torch.autocast("cpu", torch.bfloat16, enabled=training.precision == "bf16"):
            found = [model.losses(part, 0) for part in fixed]
        return {
            f"validation_{key}": sum(float(f[key]) for f in found) / len(found) for key in found[0]
        }

    return train(
        model, load, training, seed=seed, folder=folder, label=label,
        fingerprint=dependencies, validate=validate,
    )  # fmt: skip


def _aligned(batch: MicroBatch, labels: dict[str, np.ndarray], frames: int) -> Tensor:
    """The labels [B, T] of a cropped batch: those of the frames nearest to each crop's frames."""
    rows = []
    for utterance, start in zip(batch.utterances, batch.starts, strict=True):
        whole = labels[utterance.id]
        first = min(round(start / HOP), max(0, len(whole) - frames))
        row = whole[first : first + frames]
        rows.append(np.pad(row, (0, frames - len(row)), mode="edge"))
    return torch.from_numpy(np.stack(rows)).long()


def _labels(
    path: Path,
    utterances: dict[str, list[Utterance]],
    previous: MaskedPrediction | None,
    job: PretrainingJob,
    number: int,
    dependencies: str,
) -> dict[str, np.ndarray]:
    """The cluster of every frame of every utterance, by k-means; kept in `path` for a restart."""
    section = job.pretraining
    if path.exists():
        with np.load(path) as kept:
            if str(kept["dependencies"]) == dependencies:
                return {key: kept[key] for key in kept.files if key != "dependencies"}
    everything = [u for part in utterances.values() for u in part]
    found: dict[str, np.ndarray] = {}
    with track(len(everything), f"features of round {number}") as progress:
        for index, utterance in enumerate(everything):
            waveform = read(utterance)
            if previous is None:
                feature = mfcc(waveform)
            else:
                with torch.autocast("cpu", torch.bfloat16):
                    feature = layer_features(previous.encoder.eval(), waveform, section.layer)
            found[utterance.id] = feature.astype(np.float16 if previous is not None else np.float32)
            progress.update(index + 1)
    draw = np.random.default_rng(section.seed)
    sample = np.concatenate(
        [found[u.id][draw.random(len(found[u.id])) < _SHARE] for u in utterances["train"]]
    ).astype(np.float32)
    mean, deviation = sample.mean(0), sample.std(0).clip(min=1e-6)
    model = fit_clusters((sample - mean) / deviation, section.clusters[number - 1], section.seed)
    labels = {
        key: model.predict(((value - mean) / deviation).astype(np.float32)).astype(np.int16)
        for key, value in found.items()
    }
    with replacing(path) as temporary:
        np.savez(temporary, dependencies=np.array(dependencies), **labels)  # type: ignore[arg-type]
    return labels
