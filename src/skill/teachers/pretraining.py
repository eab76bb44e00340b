"""The verb `pretrain`: how the sample teachers are made.

The convolutions start as a filter bank (`filter_bank`) and learn to give the spectrum
(`masked_prediction.SpectrumRegression`), then rounds of masked prediction follow, whose targets are
clusters (`pseudo_labels`): of MFCC in round 1, of a middle layer of the model so far in every later
one.

Unlike HuBERT, a round starts from the weights of the one before instead of from nothing: with hours
of audio instead of a thousand, the shorter way is the better one.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skill.config.jobs import PretrainingJob
from skill.config.params import Training
from skill.data.audio import read_segment
from skill.data.batches import Batches, MicroBatch
from skill.data.loader import Loaded, Loader, first_batches
from skill.data.manifest import Utterance, usable
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.teachers import filterbank_init
from skill.teachers.masked_prediction import MaskedPrediction, Spectrum, SpectrumRegression
from skill.teachers.pseudo_labels import cluster_labels
from skill.training.loop import Experiment, Micro, Outcome, seed_step, train
from skill.training.precision import autocast
from skill.utils.files import canonical_json, sha256, write_tensors
from skill.utils.provenance import fingerprint, stamp

HOP = 320  # samples per frame
_VALIDATION_BATCHES = 8
_SPECTRUM_EVERY = 20  # utterances, of which the spectrum's mean and covariance take one
_KEPT = ("mask_embedding", "spectrum_head.weight", "spectrum_head.bias")  # from round to round


def run(
    name: str, job: PretrainingJob, manifests: Sequence[Path], output: Path, scratch: Path
) -> None:
    """Make the teacher `name` of `job`, resumed where it was stopped; writes an encoder file.

    Raises:
        SkillError: no audio, or a loss that is not finite.
    """
    section = job.pretraining
    plain = EncoderConfig.uniform(
        section.family,
        width=section.width,
        blocks=section.blocks,
        heads=section.heads,
        ffn=section.ffn,
        pos_conv_kernel=section.pos_conv_kernel,
        projection_dropout=section.dropout,
        attention_dropout=section.dropout,
        hidden_dropout=section.dropout,
    )
    config = filterbank_init.shaped(plain, section.bands, section.levels)
    shortest, longest = job.unlabelled.min_seconds, job.unlabelled.max_seconds
    utterances = {split: usable(manifests, shortest, longest, split) for split in ("train", "dev")}
    dependencies = canonical_json(
        [job.model_dump(mode="json"), {str(p): sha256(p) for p in manifests}, fingerprint(__name__)]
    )
    seed_step(section.seed, 0)
    encoder = SpeechEncoder(config)
    filterbank_init.start(encoder)
    spectrum = Spectrum(
        torch.from_numpy(read_segment(u)) for u in utterances["train"][::_SPECTRUM_EVERY]
    )
    if section.spectrum is not None:
        _train(
            f"{name} spectrum",
            SpectrumRegression(encoder, spectrum, section.spectrum.learning_rate),
            section.spectrum,
            utterances,
            lambda batch, frames: None,
            section.seed,
            scratch / "spectrum",
            f"spectrum {dependencies}",
        )
    heads: dict[str, Tensor] = {}
    curve: list[dict[str, float]] = []
    for number, training in enumerate(section.rounds, start=1):
        labels = cluster_labels(
            scratch / f"clusters{number}.npz",
            utterances,
            encoder if number > 1 else None,
            section.layer,
            section.clusters[number - 1],
            section.seed,
            dependencies,
        )
        seed_step(section.seed, number)
        model = MaskedPrediction(
            encoder,
            section.clusters[number - 1],
            spectrum,
            spectrum_layer=section.spectrum_layer,
            mixing=section.mixing,
            mask_probability=section.mask_probability,
            learning_rate=training.learning_rate,
        )
        model.load_state_dict(heads, strict=False)
        outcome = _train(
            f"{name} round {number}",
            model,
            training,
            utterances,
            lambda batch, frames, labels=labels: _aligned(batch, labels, frames),  # type: ignore[misc]
            section.seed + number,
            scratch / f"round{number}",
            f"{number} {dependencies}",
        )
        curve = outcome.curve
        heads = {key: value for key, value in model.state_dict().items() if key in _KEPT}
    half = {key: value.half() for key, value in encoder.state_dict().items()}
    validation = {key: value for key, value in curve[-1].items() if "validation" in key}
    made = {"command": f"python -m skill pretrain {name}", "validation": validation}
    header = {
        "kind": "encoder",
        "config": config.to_dict(),
        "provenance": stamp(manifests, job) | made,
    }
    write_tensors(output, half, header)


def _train(
    label: str,
    experiment: Experiment,
    training: Training,
    utterances: dict[str, list[Utterance]],
    targets: Callable[[MicroBatch, int], Tensor | None],
    seed: int,
    folder: Path,
    dependencies: str,
) -> Outcome:
    """One training; `targets` gives what a batch of so many frames has to predict."""
    batches = Batches(
        utterances["train"], training.batch_seconds, seed, micro_seconds=training.micro_seconds
    )
    held_out = Batches(utterances["dev"], training.micro_seconds, 0)
    encoder: SpeechEncoder = experiment.encoder  # type: ignore[attr-defined]

    def micro(loaded: Loaded) -> Micro:
        batch, waveforms, lengths = loaded
        frames = int(encoder.frames(waveforms.shape[1]))
        ids = [utterance.id for utterance in batch.utterances]
        return Micro(ids, waveforms, lengths, targets(batch, frames))

    def load(first: int) -> Iterator[tuple[int, list[Micro]]]:
        with Loader(batches, first, workers=1) as loader:
            for step, loaded in loader:
                yield step, [micro(part) for part in loaded]

    fixed = [micro(loaded) for loaded in first_batches(held_out, _VALIDATION_BATCHES)]
    module: Any = experiment

    @torch.no_grad()
    def validate() -> dict[str, float]:
        module.eval()
        with autocast(training.precision, "cpu"):
            found = [experiment.losses(part, 0) for part in fixed]
        return {
            f"validation_{key}": sum(float(f[key]) for f in found) / len(found) for key in found[0]
        }

    return train(
        experiment, load, training, seed=seed, folder=folder, label=label,
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
