"""The verb `pretrain`: how the sample teachers are made.

A teacher starts from another one's weights, or from none: then its convolutions start as a filter
bank (`filterbank_init`) and learn to give the spectrum (`spectrum.SpectrumRegression`). Rounds of
masked prediction follow (`masked_prediction`). What a round predicts is a list of values: clusters
of MFCC, clusters or states of the model that the rounds before made, clusters or states of a real
encoder (`whisper`), the spectrum, each at a block.

Unlike HuBERT, a round starts from the weights of the one before instead of from nothing: with hours
of audio instead of a thousand, the shorter way is the better one.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skill.config.jobs import PretrainingJob
from skill.config.pretraining import Pretraining, PretrainingStart
from skill.config.training import Training
from skill.data.audio import read_segment
from skill.data.batches import Batch, BatchPlan
from skill.data.manifest import Utterance, usable
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.encoder.checkpoint import load_encoder
from skill.teachers import filterbank_init
from skill.teachers.masked_prediction import MaskedPrediction
from skill.teachers.round_targets import TargetValues, round_targets
from skill.teachers.spectrum import Spectrum, SpectrumRegression
from skill.teachers.speeds import at_other_speeds
from skill.training.batches import training_audio
from skill.training.distributed import World
from skill.training.exactness import Subject
from skill.training.loop import TrainingResult, seed_step, train
from skill.training.machine_check import choose_precision, findings_folder, speech_clip
from skill.utils.errors import SkillError
from skill.utils.files import canonical_json, checkout_path, sha256, write_csv, write_tensors
from skill.utils.provenance import fingerprint, stamp

_VALIDATION_BATCHES = 8
_SPECTRUM_EVERY = 20  # utterances, of which the spectrum's mean and covariance take one


def run(
    name: str, job: PretrainingJob, manifests: Sequence[Path], output: Path, scratch: Path
) -> None:
    """Make the teacher `name` of `job`, resumed where it was stopped; writes an encoder file.

    Raises:
        SkillError: no audio, an encoder that is not installed, a target shorter than its audio, a
            machine that computes the model wrongly, or a loss that is not finite.
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
    corpus = _corpus_key(job, manifests)
    utterances = _utterances(job, manifests, scratch, corpus)
    seed_step(section.seed, 0)
    encoder = SpeechEncoder(config)
    filterbank_init.start(encoder)
    if section.start is not None:
        _load_start(encoder, section.start)
    spectrum = Spectrum(
        torch.from_numpy(read_segment(u)) for u in utterances["train"][::_SPECTRUM_EVERY]
    )
    curves: dict[str, list[dict[str, float]]] = {}
    clip, folder = speech_clip(utterances["train"]), findings_folder(scratch)

    def checked(label: str, training: Training) -> Training:
        subjects = [Subject(name, encoder, gradients=True)]
        precision = choose_precision(label, subjects, clip, training.precision, folder)
        return training.model_copy(update={"precision": precision})

    if section.spectrum is not None:
        label = f"{name} spectrum"
        result = _train(
            label,
            SpectrumRegression(encoder, spectrum, section.spectrum.learning_rate),
            checked(label, section.spectrum),
            utterances,
            lambda plan, frames: None,
            section.seed,
            scratch / "spectrum",
            _stage_key(corpus, section, 0),
        )
        curves["spectrum"] = result.curve
    first = encoder.config.receptive_field // 2
    state: dict[str, Any] = {}
    for number, stage in enumerate(section.rounds, start=1):
        label = f"{name} round {number}"
        training = checked(label, stage)
        values = round_targets(
            scratch, number, stage.targets, utterances, encoder, section.seed, corpus,
            _stage_key(corpus, section, number - 1), training.precision,
        )  # fmt: skip
        seed_step(section.seed, number)
        model = MaskedPrediction(
            encoder,
            stage.targets,
            [spectrum.directions if value is None else value.dimensions for value in values],
            spectrum,
            mixing=section.mixing,
            noise=section.noise,
            mask_probability=section.mask_probability,
            learning_rate=stage.learning_rate,
        )
        model.take_over(state)
        result = _train(
            label,
            model,
            training,
            utterances,
            partial(_extra, values, first),
            section.seed + number,
            scratch / f"round{number}",
            _stage_key(corpus, section, number),
        )
        curves[f"round {number}"] = result.curve
        state = model.hand_over()
    half = {key: value.half() for key, value in encoder.state_dict().items()}
    last = curves[f"round {len(section.rounds)}"][-1]
    validation = {key: value for key, value in last.items() if "validation" in key}
    provenance = {"command": f"python -m skill pretrain {name}", "validation": validation}
    header = {
        "kind": "encoder",
        "config": config.to_dict(),
        "provenance": stamp(manifests, job, training.precision) | provenance,
    }
    _write_curves(scratch / "curve.csv", curves)
    write_tensors(output, half, header)


def _load_start(encoder: SpeechEncoder, start: PretrainingStart) -> None:
    """Take over the weights of a teacher of the same shape.

    Raises:
        SkillError: the file is missing, or not the one of the parameters, or of another shape.
    """
    path = checkout_path(start.source)
    if not path.is_file():
        raise SkillError(f"pretraining.start: there is no file {start.source}")
    if sha256(path) != start.sha256:
        raise SkillError(
            f"pretraining.start: {start.source} has another SHA-256 than the one given"
        )
    weights = load_encoder(path)
    shapes, expected = (
        {name: tuple(value.shape) for name, value in model.state_dict().items()}
        for model in (weights, encoder)
    )
    if shapes != expected or weights.config.family != encoder.config.family:
        raise SkillError(f"pretraining.start: {start.source} has another shape than the parameters")
    encoder.load_state_dict(weights.state_dict())


def _write_curves(path: Path, curves: dict[str, list[dict[str, float]]]) -> None:
    """All stages' curves as one table; a stage has not every column."""
    rows = [{"stage": stage} | row for stage, curve in curves.items() for row in curve]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    write_csv(path, ({column: row.get(column, "") for column in columns} for row in rows), columns)


def _train(
    label: str,
    model: SpectrumRegression | MaskedPrediction,
    training: Training,
    utterances: dict[str, list[Utterance]],
    targets: Callable[[BatchPlan, int], Any],
    seed: int,
    folder: Path,
    dependencies: str,
) -> TrainingResult:
    """One training; `targets` gives what a batch of so many frames has to predict."""

    def prepare(batch: Batch) -> Batch:
        frames = int(model.encoder.frames(batch.waveforms.shape[1]))
        return replace(batch, targets=targets(batch.plan, frames))

    audio = training_audio(
        label, utterances, training, seed, World(0, 1, "cpu"),
        prepare=prepare, held_out_batches=_VALIDATION_BATCHES,
    )  # fmt: skip
    return train(
        model, audio.steps, training, seed=seed, folder=folder, label=label,
        fingerprint=dependencies, held_out=audio.held_out,
    )  # fmt: skip


def _corpus_key(job: PretrainingJob, manifests: Sequence[Path]) -> str:
    """What the utterances follow from; teachers that learn from the same ones share it."""
    section = job.pretraining
    return canonical_json(
        {
            "manifests": [sha256(path) for path in manifests],
            "unlabelled": job.unlabelled.model_dump(mode="json"),
            "languages": section.languages,
            "speeds": section.speeds,
            "code": [fingerprint("skill.teachers.speeds"), fingerprint("skill.teachers.whisper")],
        }
    )


def _stage_key(corpus: str, section: Pretraining, rounds: int) -> str:
    """What the model follows from after so many rounds: rounds can be added to a finished one."""
    later = {"mixing", "noise", "mask_probability"} if rounds == 0 else set()
    values = section.model_dump(mode="json", exclude={"rounds"} | later)
    earlier = [stage.model_dump(mode="json") for stage in section.rounds[:rounds]]
    return canonical_json([corpus, values, earlier, fingerprint(__name__)])


def _utterances(
    job: PretrainingJob, manifests: Sequence[Path], scratch: Path, dependencies: str
) -> dict[str, list[Utterance]]:
    """Those of the training and the development split; copies at other speeds train, too.

    Raises:
        SkillError: a split has none.
    """
    section = job.pretraining
    shortest, longest = job.unlabelled.min_seconds, job.unlabelled.max_seconds
    chosen: dict[str, list[Utterance]] = {}
    for split in ("train", "dev"):
        chosen[split] = [
            utterance
            for utterance in usable(manifests, shortest, longest, split)
            if not section.languages or utterance.language in section.languages
        ]
        if not chosen[split]:
            names = ", ".join(section.languages)
            raise SkillError(f"pretraining.languages: no {split} utterance is in {names}")
    if section.speeds:
        copies = at_other_speeds(chosen["train"], section.speeds, scratch, dependencies)
        chosen["train"] += [u for u in copies if shortest <= u.seconds <= longest]
    return chosen


def _extra(
    values: Sequence[TargetValues | None], first: int, plan: BatchPlan, frames: int
) -> list[Tensor | None]:
    """What the targets want of a batch of `frames` frames, the first centred on sample `first`."""
    return [
        None if value is None else torch.from_numpy(value.of(plan, frames, first))
        for value in values
    ]
