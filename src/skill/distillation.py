"""The two stages: stage 1 prunes and distils at once, stage 2 distils the pruned student further.

As in DPHuBERT (Peng et al. 2023, arXiv:2305.17651): stage 1 starts as the teacher with gates,
stage 2 starts as the pruned student of stage 1, its projections included. A method that prunes
nothing passes stage 1 without gates.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from skill import gates, pruning
from skill.corpora.batches import Batches, MicroBatch, collate
from skill.corpora.loader import Loader
from skill.corpora.manifest import usable
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.errors import SkillError
from skill.files import (
    canonical_json,
    read_header,
    read_json,
    read_tensors,
    sha256,
    write_csv,
    write_json,
    write_tensors,
)
from skill.methods import Method, Target, resolve
from skill.params import Stage1Job, Stage2Job, Unlabelled
from skill.prediction import Distillation
from skill.provenance import fingerprint, stamp
from skill.training import Micro, Outcome, seed_step, train

_VALIDATION_BATCHES = 4
_SPARSITY_TOLERANCE = 0.01


def stage1(
    name: str,
    job: Stage1Job,
    teachers: Sequence[Path],
    manifests: Sequence[Path],
    grouping: Path | None,
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
    world = _World.start()
    encoders = _load_teachers(job.teachers, teachers, world.device)
    first = next(iter(encoders.values()))
    seed_step(job.seed, 0)
    student = start_student(first, job.definition.start_blocks).to(world.device)
    target = None
    if job.definition.prune:
        assert job.sparsity is not None
        gates.attach(student, units=job.definition.prune)
        target = gates.SparsityTarget(student, job.sparsity, job.stage.sparsity_warmup)
        target.to(world.device)
    experiment = Distillation(
        student,
        encoders,
        _targets(job.definition, encoders, grouping),
        job.definition,
        learning_rate=job.stage.learning_rate,
        pruning=target,
        gate_learning_rate=job.stage.gate_learning_rate,
        multiplier_learning_rate=job.stage.multiplier_learning_rate,
    ).to(world.device)
    inputs = [*teachers, *manifests, *([grouping] if grouping else [])]
    outcome = _run(
        f"{name} stage 1", experiment, job, job.unlabelled, manifests, inputs, scratch, world
    )
    if not world.writes:
        return
    left = gates.summary(student) if job.definition.prune else {}
    if job.definition.prune:
        assert job.sparsity is not None
        gates.select(student, job.sparsity)
        student = pruning.prune(student)
        reached = 1 - student.num_parameters() / gates.full_size(first)
        if abs(reached - job.sparsity) > _SPARSITY_TOLERANCE:
            raise SkillError(
                f"{name}: pruned to a sparsity of {reached:.4f} instead of {job.sparsity}"
            )
    parts = {f"encoder.{key}": value for key, value in student.state_dict().items()}
    for key, value in experiment.projections.state_dict().items():
        parts[f"projections.{key}"] = value
    header = {
        "kind": "stage1",
        "config": student.config.to_dict(),
        "provenance": stamp(inputs, job),
    }
    write_tensors(output, parts, header)
    _report(student, first, experiment, outcome, curve, summary, {"gates": left} | header)


def stage2(
    name: str,
    job: Stage2Job,
    student: Path,
    teachers: Sequence[Path],
    manifests: Sequence[Path],
    grouping: Path | None,
    output: Path,
    curve: Path,
    summary: Path,
    scratch: Path,
) -> None:
    """The verb `stage2`: distil the student of stage 1 further; write it as an encoder file.

    Raises:
        SkillError: `student` is no file of stage 1, or as for `stage1`.
    """
    world = _World.start()
    encoders = _load_teachers(job.teachers, teachers, world.device)
    pruned, projections = _read_stage1(student)
    seed_step(job.seed, 0)
    experiment = Distillation(
        pruned,
        encoders,
        _targets(job.definition, encoders, grouping),
        job.definition,
        learning_rate=job.stage.learning_rate,
    )
    try:
        experiment.projections.load_state_dict(projections)
    except RuntimeError as error:
        raise SkillError(f"{student}: its projections are of another method: {error}") from error
    experiment.to(world.device)
    inputs = [student, *teachers, *manifests, *([grouping] if grouping else [])]
    outcome = _run(
        f"{name} stage 2", experiment, job, job.unlabelled, manifests, inputs, scratch, world
    )
    if not world.writes:
        return
    from skill import checkpoints

    first = next(iter(encoders.values()))
    provenance = stamp(inputs, job)
    checkpoints.save(pruned, output, {"student": name, "provenance": provenance})
    _report(pruned, first, experiment, outcome, curve, summary, {"provenance": provenance})


def start_student(teacher: SpeechEncoder, blocks: int | None) -> SpeechEncoder:
    """A copy of the teacher, or of its first `blocks` blocks.

    Raises:
        SkillError: the teacher has fewer blocks.
    """
    config = teacher.config
    if blocks is not None and blocks > config.num_blocks:
        raise SkillError(f"a student of {blocks} blocks, but the teacher has {config.num_blocks}")
    student = SpeechEncoder(replace(config, heads=config.heads[:blocks], ffn=config.ffn[:blocks]))
    state = teacher.state_dict()
    student.load_state_dict({name: state[name] for name in student.state_dict()})
    return student


@dataclass(frozen=True)
class _World:
    """This process among those of `torchrun`."""

    rank: int
    size: int
    device: str

    @classmethod
    def start(cls) -> "_World":
        cuda = torch.cuda.is_available()
        if "LOCAL_RANK" not in os.environ:
            return cls(0, 1, "cuda" if cuda else "cpu")
        if not dist.is_initialized():
            dist.init_process_group("nccl" if cuda else "gloo")
        device = f"cuda:{os.environ['LOCAL_RANK']}" if cuda else "cpu"
        return cls(dist.get_rank(), dist.get_world_size(), device)

    @property
    def writes(self) -> bool:
        return self.rank == 0


class _Share:
    """The micro-batches of this process: every R-th of a step, or the whole step where R is 1."""

    def __init__(self, batches: Batches, world: _World) -> None:
        self.whole, self.world, self.utterances = batches, world, batches.utterances

    def at(self, step: int) -> list[MicroBatch]:
        return self.whole.at(step)[self.world.rank :: self.world.size]


def _load_teachers(
    names: Sequence[str], paths: Sequence[Path], device: str
) -> dict[str, SpeechEncoder]:
    encoders = [SpeechEncoder.from_pretrained(path).eval().to(device) for path in paths]
    return dict(zip(names, encoders, strict=True))


def _targets(
    method: Method, teachers: dict[str, SpeechEncoder], grouping: Path | None
) -> list[Target]:
    sizes = {name: (t.config.num_blocks, t.config.width) for name, t in teachers.items()}
    clusters = None
    if grouping is not None:
        clusters = [[(n, int(layer)) for n, layer in c] for c in read_json(grouping)["layers"]]
    return resolve(method, sizes, clusters)


def _read_stage1(path: Path) -> tuple[SpeechEncoder, dict[str, Tensor]]:
    if read_header(path).get("kind") != "stage1":
        raise SkillError(f"{path}: not a student of stage 1")
    tensors, header = read_tensors(path)
    student = SpeechEncoder(EncoderConfig.from_dict(header["config"]))
    parts: dict[str, dict[str, Tensor]] = {"encoder": {}, "projections": {}}
    for key, value in tensors.items():
        part, _, rest = key.partition(".")
        parts[part][rest] = value
    student.load_state_dict(parts["encoder"])
    return student, parts["projections"]


def _run(
    label: str,
    experiment: Distillation,
    job: Stage1Job | Stage2Job,
    unlabelled: Unlabelled,
    manifests: Sequence[Path],
    inputs: Sequence[Path],
    scratch: Path,
    world: _World,
) -> Outcome:
    stage = job.stage
    shortest, longest = unlabelled.min_seconds, unlabelled.max_seconds
    batches = Batches(
        usable(manifests, shortest, longest, "train"),
        stage.batch_seconds,
        job.seed,
        fixed_order=stage.fixed_order,
        micro_seconds=stage.micro_seconds,
    )
    held_out = Batches(usable(manifests, shortest, longest, "dev"), stage.micro_seconds, 0)
    held_out_micros = [
        _micro(micro, *collate(micro), world.device)
        for step in range(min(_VALIDATION_BATCHES, len(held_out)))
        for micro in held_out.at(step)
    ]
    share: Any = _Share(batches, world)

    def load(first: int) -> Iterator[tuple[int, list[Micro]]]:
        with Loader(share, first, workers=1) as loader:
            for step, loaded in loader:
                yield step, [_micro(m.batch, m.waveforms, m.lengths, world.device) for m in loaded]

    dependencies = {str(path): sha256(path) for path in inputs}
    return train(
        experiment,
        load,
        stage,
        seed=job.seed,
        folder=scratch,
        label=label,
        fingerprint=canonical_json(
            [job.model_dump(mode="json"), dependencies, fingerprint("skill.distillation")]
        ),
        validate=_validation(experiment, held_out_micros, stage.precision, world.device),
        device=world.device.partition(":")[0],
    )


def _micro(batch: MicroBatch, waveforms: Tensor, lengths: Tensor, device: str) -> Micro:
    ids = [utterance.id for utterance in batch.utterances]
    return Micro(ids, waveforms.to(device, non_blocking=True), lengths)


def _validation(
    experiment: Distillation, micros: list[Micro], precision: str, device: str
) -> Callable[[], dict[str, float]]:
    """The distillation loss on held-out audio: no dropout, gates at their expected values."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16

    @torch.no_grad()
    def validate() -> dict[str, float]:
        experiment.eval()
        total = audio = 0.0
        kind = device.partition(":")[0]
        for micro in micros:
            with torch.autocast(kind, dtype, enabled=precision != "float32"):
                loss = experiment.distill(micro.waveforms)["distillation"]
            total += float(loss) * micro.audio
            audio += micro.audio
        return {"validation_loss": total / audio}

    return validate


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
        }
        | {key: facts[key] for key in ("gates", "provenance") if key in facts},
    )
    if outcome.skipped_steps:
        print(f"{summary.stem}: {outcome.skipped_steps} steps were skipped", file=sys.stderr)
