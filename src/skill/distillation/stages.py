"""The two stages: stage 1 prunes and distils at once, stage 2 distils the pruned student further.

As in DPHuBERT (Peng et al. 2023, arXiv:2305.17651): stage 1 starts as the teacher with gates,
stage 2 starts as the pruned student of stage 1, its projections included. A method that prunes
nothing passes stage 1 without gates.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skill.config.jobs import Stage1Job, Stage2Job
from skill.distillation import gates, pruning
from skill.distillation.distiller import Distillation
from skill.distillation.runs import World, load_teachers, run, targets_of
from skill.encoder import EncoderConfig, SpeechEncoder, checkpoint
from skill.training.checkpoints import forget
from skill.training.loop import Outcome, seed_step
from skill.utils.errors import SkillError
from skill.utils.files import read_tensors, write_csv, write_json, write_tensors
from skill.utils.provenance import stamp

_SIZE_TOLERANCE = 0.01
_CUT_AT_ONCE = 0.02


def stage1(
    name: str,
    job: Stage1Job,
    teachers: Sequence[Path],
    manifests: Sequence[Path],
    clustering: Path | None,
    output: Path,
    curve: Path,
    summary: Path,
    scratch: Path,
) -> None:
    """The verb `stage1`: write the pruned student with its projections, its curve and summary.

    Raises:
        SkillError: an unreachable sparsity, layers that do not exist, no audio, or a loss that is
            not finite.
    """
    world = World.start()
    encoders = load_teachers(job.teachers, teachers, world.device)
    first = next(iter(encoders.values()))
    seed_step(job.seed, 0)
    student = start_student(first, job.definition.start_blocks, job.stage.dropout)
    student = student.to(world.device)
    target = None
    if job.definition.prune:
        assert job.sparsity is not None
        gates.attach(student, units=job.definition.prune)
        target = gates.SparsityTarget(student, job.sparsity, job.stage.sparsity_warmup)
        target.to(world.device)
    experiment = Distillation(
        student,
        encoders,
        targets_of(job.definition, encoders, clustering),
        job.definition,
        learning_rate=job.stage.learning_rate,
        pruning=target,
        gate_learning_rate=job.stage.gate_learning_rate,
        multiplier_learning_rate=job.stage.multiplier_learning_rate,
        compiled=job.stage.compile,
    ).to(world.device)
    inputs = [*teachers, *manifests, *([clustering] if clustering else [])]
    every = job.stage.compact_every

    def compact(done: int, optimizer: torch.optim.AdamW) -> torch.optim.AdamW | None:
        if not every or done % every:
            return None
        changed = experiment.compact(optimizer)
        if changed is not None and world.writes:
            left = experiment.student.num_parameters()
            print(f"{name}: {left} parameters stay after {done} steps", file=sys.stderr)
        return changed

    outcome = run(
        f"{name} stage 1", experiment, job, manifests, inputs, scratch, world,
        reshape=compact if target is not None else None,
    )  # fmt: skip
    student = experiment.student
    if not world.writes:
        return
    left = gates.summary(student)
    if target is not None:
        assert job.sparsity is not None
        _warn_of_a_cut(name, job.sparsity, outcome)
        gates.select(student, job.sparsity, target.full)
        student = pruning.prune(student)
        _warn_of_the_size(name, student.num_parameters(), (1 - job.sparsity) * target.full)
    parts = {f"encoder.{key}": value for key, value in student.state_dict().items()}
    for key, value in experiment.projections.state_dict().items():
        parts[f"projections.{key}"] = value
    header = {
        "kind": "stage1",
        "config": student.config.to_dict(),
        "provenance": stamp(inputs, job, outcome.precision),
    }
    write_tensors(output, parts, header)
    _report(student, first, experiment, outcome, curve, summary, {"gates": left} | header)
    forget(scratch)


def stage2(
    name: str,
    job: Stage2Job,
    student: Path,
    teachers: Sequence[Path],
    manifests: Sequence[Path],
    clustering: Path | None,
    output: Path,
    curve: Path,
    summary: Path,
    scratch: Path,
) -> None:
    """The verb `stage2`: distil the student of stage 1 further; write it as an encoder file.

    Raises:
        SkillError: `student` is no file of stage 1, or as for `stage1`.
    """
    world = World.start()
    encoders = load_teachers(job.teachers, teachers, world.device)
    pruned, projections = _read_stage1(student, job.stage.dropout)
    seed_step(job.seed, 0)
    experiment = Distillation(
        pruned,
        encoders,
        targets_of(job.definition, encoders, clustering),
        job.definition,
        learning_rate=job.stage.learning_rate,
        compiled=job.stage.compile,
    )
    try:
        experiment.projections.load_state_dict(projections)
    except RuntimeError as error:
        raise SkillError(f"{student}: its projections are of another method: {error}") from error
    experiment.to(world.device)
    inputs = [student, *teachers, *manifests, *([clustering] if clustering else [])]
    outcome = run(
        f"{name} stage 2", experiment, job, manifests, inputs, scratch, world, heard=job.heard
    )
    if not world.writes:
        return
    first = next(iter(encoders.values()))
    provenance = stamp(inputs, job, outcome.precision)
    checkpoint.save_encoder(pruned, output, {"student": name, "provenance": provenance})
    _report(pruned, first, experiment, outcome, curve, summary, {"provenance": provenance})
    forget(scratch)


def start_student(
    teacher: SpeechEncoder, blocks: int | None, dropout: float | None = None
) -> SpeechEncoder:
    """A copy of the teacher, or of its first `blocks` blocks; `dropout`: see `regularised`.

    Raises:
        SkillError: the teacher has fewer blocks.
    """
    config = regularised(teacher.config, dropout)
    if blocks is not None and blocks > config.num_blocks:
        raise SkillError(f"a student of {blocks} blocks, but the teacher has {config.num_blocks}")
    student = SpeechEncoder(replace(config, heads=config.heads[:blocks], ffn=config.ffn[:blocks]))
    state = teacher.state_dict()
    student.load_state_dict({name: state[name] for name in student.state_dict()})
    return student


def regularised(config: EncoderConfig, dropout: float | None) -> EncoderConfig:
    """`config` with DPHuBERT's places of dropout: all but inside the feed-forward layers.

    None leaves the teacher's, which is what its pretraining needed.
    """
    if dropout is None:
        return config
    return replace(
        config,
        projection_dropout=dropout,
        attention_dropout=dropout,
        hidden_dropout=dropout,
        activation_dropout=0.0,
    )


def _read_stage1(path: Path, dropout: float | None) -> tuple[SpeechEncoder, dict[str, Tensor]]:
    tensors, header = read_tensors(path)
    if header.get("kind") != "stage1":
        raise SkillError(f"{path}: not a student of stage 1")
    parts: dict[str, dict[str, Tensor]] = {"encoder": {}, "projections": {}}
    try:
        config = regularised(EncoderConfig.from_dict(header["config"]), dropout)
        for key, value in tensors.items():
            part, _, rest = key.partition(".")
            parts[part][rest] = value
    except (KeyError, ValueError) as error:
        raise SkillError(f"{path}: not as stage 1 writes a student: {error}") from error
    return checkpoint.build(config, parts["encoder"], path).train(), parts["projections"]


def _warn_of_a_cut(name: str, sparsity: float, outcome: Outcome) -> None:
    """Say where the gates have not come to the sparsity that the student is now cut to."""
    expected = next((row["sparsity"] for row in outcome.curve[::-1] if "sparsity" in row), 0.0)
    if abs(expected - sparsity) > _CUT_AT_ONCE:
        print(
            f"warning: {name}: the gates ended at an expected sparsity of {expected:.3f}, and the "
            f"step to {sparsity} is taken at once; another multiplier_learning_rate, or more "
            "steps, would bring them nearer",
            file=sys.stderr,
            flush=True,
        )


def _warn_of_the_size(name: str, parameters: int, wanted: float) -> None:
    """Whole layers as units may be too coarse for a size; the student is kept all the same."""
    if abs(parameters - wanted) > _SIZE_TOLERANCE * wanted:
        print(
            f"warning: {name}: {parameters} parameters instead of {wanted:.0f}: no set of the "
            "units that are pruned comes nearer",
            file=sys.stderr,
            flush=True,
        )


def _report(
    student: SpeechEncoder,
    teacher: SpeechEncoder,
    experiment: Distillation,
    outcome: Outcome,
    curve: Path,
    summary: Path,
    facts: dict[str, Any],
) -> None:
    columns = list(dict.fromkeys(key for row in outcome.curve for key in row))
    write_csv(curve, outcome.curve, columns or ["step", "loss"])
    last = outcome.curve[-1] if outcome.curve else {}
    config = student.config
    write_json(
        summary,
        {
            "parameters": student.num_parameters(),
            "teacher_parameters": teacher.num_parameters(),
            "sparsity": 1 - student.num_parameters() / teacher.num_parameters(),
            "expected_sparsity": last.get("sparsity"),
            "heads": [len(heads) for heads in config.heads],
            "ffn": list(config.ffn),
            "conv_channels": list(config.conv_channels),
            "teacher": {
                "heads": [len(heads) for heads in teacher.config.heads],
                "ffn": list(teacher.config.ffn),
                "conv_channels": list(teacher.config.conv_channels),
            },
            "targets": [
                {
                    "teacher": [[n, layer] for n, layer in target.teacher],
                    "student": list(target.student),
                    "loss": last.get(f"target{index}"),
                }
                for index, target in enumerate(experiment.targets)
            ],
            "loss": last.get("distillation"),
            "validation_loss": last.get("validation_loss"),
            "best_validation_loss": outcome.best_loss if outcome.best_step else None,
            "best_step": outcome.best_step,
            "skipped_steps": outcome.skipped_steps,
            "precision": outcome.precision,
        }
        | {key: facts[key] for key in ("gates", "provenance") if key in facts},
    )
    if outcome.skipped_steps:
        print(f"{summary.stem}: {outcome.skipped_steps} steps were skipped", file=sys.stderr)
