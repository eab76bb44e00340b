"""The two stages: stage 1 prunes and distils at once, stage 2 distils the pruned student further.

As in DPHuBERT (Peng et al. 2023, arXiv:2305.17651): stage 1 starts as the teacher with gates,
stage 2 starts as the pruned student of stage 1, its projections included. A method that prunes
nothing passes stage 1 without gates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from skill.config.jobs import Stage1Job, Stage2Job
from skill.config.methods import Method
from skill.data.manifest import read_manifest, usable
from skill.distillation import gates, summary
from skill.distillation.distiller import Distiller
from skill.distillation.pruning import prune, select
from skill.distillation.sparsity import SparsityTarget
from skill.distillation.student import read_stage1, start_student, write_stage1
from skill.distillation.targets import Target, build_targets
from skill.encoder import SpeechEncoder
from skill.encoder.checkpoint import load_encoder, save_encoder
from skill.similarity.clusters import read_clusters
from skill.training.batches import training_audio
from skill.training.checkpoints import forget
from skill.training.distributed import World
from skill.training.exactness import Subject
from skill.training.loop import TrainingResult, seed_step, train
from skill.training.machine_check import choose_precision, findings_folder, speech_clip
from skill.utils.errors import SkillError
from skill.utils.files import canonical_json, sha256
from skill.utils.provenance import fingerprint, stamp


@dataclass(frozen=True)
class StageFiles:
    """What a stage reads and writes; curve (.csv) and summary (.json) have the output's name."""

    teachers: Sequence[Path]
    manifests: Sequence[Path]
    clustering: Path | None
    output: Path
    scratch: Path
    student: Path | None = None
    """Stage 1's output, which stage 2 starts as."""

    @property
    def inputs(self) -> list[Path]:
        """All files that the result depends on."""
        single = [path for path in (self.student, self.clustering) if path is not None]
        return [*single, *self.teachers, *self.manifests]


def stage1(name: str, job: Stage1Job, files: StageFiles) -> None:
    """The command `stage1`: write the pruned student with its projections.

    Raises:
        SkillError: an unreachable sparsity, layers that do not exist, no audio, or a loss that is
            not finite.
    """
    world = World.start()
    encoders = load_teachers(job.teachers, files.teachers, world.device)
    teacher = encoders[job.teachers[0]]
    seed_step(job.seed, 0)
    student = start_student(teacher, job.definition.start_blocks, job.stage.dropout)
    student.to(world.device)
    sparsity = None
    if job.definition.prune:
        assert job.sparsity is not None
        gates.attach(student, units=job.definition.prune)
        sparsity = SparsityTarget(student, job.sparsity, job.stage.sparsity_warmup)
    label = f"{name} stage 1"
    distiller = build_distiller(label, job, files, student, encoders, sparsity)
    distiller.to(world.device)
    result = train_stage(label, distiller, job, files, world)
    if not world.is_main:
        return

    provenance = stamp(files.inputs, job, result.precision)
    facts = {"gates": gates.summary(student), "provenance": provenance}
    if sparsity is not None:
        summary.warn_of_sparsity(name, sparsity.sparsity, result)
        select(student, sparsity.sparsity)
        student = prune(student)
        goal = (1 - sparsity.sparsity) * sparsity.full
        summary.warn_of_size(name, student.num_parameters(), goal)
    projections = distiller.projections.state_dict()
    write_stage1(files.output, student, projections, {"provenance": provenance})
    summary.write(files.output, student, teacher, distiller, result, facts)
    forget(files.scratch)


def stage2(name: str, job: Stage2Job, files: StageFiles) -> None:
    """The command `stage2`: distil the student of stage 1 further; write it as an encoder file.

    Raises:
        SkillError: `files.student` is no file of stage 1, or as for `stage1`.
    """
    assert files.student is not None
    world = World.start()
    encoders = load_teachers(job.teachers, files.teachers, world.device)
    student, projections = read_stage1(files.student, job.stage.dropout)
    student.to(world.device)
    seed_step(job.seed, 0)
    label = f"{name} stage 2"
    distiller = build_distiller(label, job, files, student, encoders)
    try:
        distiller.projections.load_state_dict(projections)
    except RuntimeError as error:
        raise SkillError(
            f"{files.student}: its projections are of another method: {error}"
        ) from error
    distiller.to(world.device)
    result = train_stage(label, distiller, job, files, world, job.first_data_step)
    if not world.is_main:
        return

    provenance = stamp(files.inputs, job, result.precision)
    save_encoder(student, files.output, {"student": name, "provenance": provenance})
    teacher, facts = encoders[job.teachers[0]], {"provenance": provenance}
    summary.write(files.output, student, teacher, distiller, result, facts)
    forget(files.scratch)


def load_teachers(
    names: Sequence[str], paths: Sequence[Path], device: str
) -> dict[str, SpeechEncoder]:
    """The teachers by name, the first one first.

    Raises:
        SkillError: not a file for each name, or teachers whose frames are not of the same audio.
    """
    if len(names) != len(paths):
        raise SkillError(f"{len(paths)} files for the teachers {', '.join(names)}")
    teachers = {
        name: load_encoder(path).eval().to(device) for name, path in zip(names, paths, strict=True)
    }
    frames = {name: (t.config.conv_kernels, t.config.conv_strides) for name, t in teachers.items()}
    for name in names[1:]:
        if frames[name] != frames[names[0]]:
            raise SkillError(
                f"teacher {name}: convolutions of kernels {frames[name][0]} and strides "
                f"{frames[name][1]} make other frames than {names[0]}'s, so that a student cannot "
                "learn from both"
            )
    return teachers


def targets_of(
    method: Method, teachers: Mapping[str, SpeechEncoder], clustering: Path | None
) -> list[Target]:
    """What the student learns; `clustering`: the file of clusters, where the method needs one.

    Raises:
        SkillError: `clustering` holds no clusters of these teachers' layers, or as for
            `build_targets`.
    """
    sizes = {name: (t.config.num_blocks, t.config.width) for name, t in teachers.items()}
    if clustering is None:
        return build_targets(method, sizes)
    try:
        return build_targets(method, sizes, read_clusters(clustering))
    except SkillError as error:
        raise SkillError(f"{clustering}: {error}") from None


def build_distiller(
    label: str,
    job: Stage1Job | Stage2Job,
    files: StageFiles,
    student: SpeechEncoder,
    teachers: dict[str, SpeechEncoder],
    sparsity: SparsityTarget | None = None,
) -> Distiller:
    """Student and teachers in the precision to compute in, after they were tried in it.

    Raises:
        SkillError: the machine computes a model wrongly, or as for `targets_of`.
    """
    targets = targets_of(job.definition, teachers, files.clustering)
    subjects = [Subject(name, teacher) for name, teacher in teachers.items()]
    subjects.append(Subject("the student", student, gradients=True))
    clip = speech_clip(u for path in files.manifests for u in read_manifest(path))
    folder = findings_folder(files.scratch)
    precision = choose_precision(label, subjects, clip, job.stage.precision, folder)
    stage = job.stage.model_copy(update={"precision": precision})
    return Distiller(student, teachers, targets, job.definition, stage, sparsity)


def train_stage(
    label: str,
    distiller: Distiller,
    job: Stage1Job | Stage2Job,
    files: StageFiles,
    world: World,
    first_data_step: int = 0,
) -> TrainingResult:
    """Train `distiller` as `job` says; a checkpoint depends on parameters, inputs and code."""
    shortest, longest = job.unlabelled.min_seconds, job.unlabelled.max_seconds
    audio = training_audio(
        label,
        {split: usable(files.manifests, shortest, longest, split) for split in ("train", "dev")},
        distiller.stage,
        job.seed,
        world,
        first_data_step=first_data_step,
    )
    sums = {str(path): sha256(path) for path in files.inputs}
    code = fingerprint("skill.distillation.stages")
    return train(
        distiller,
        audio.steps,
        distiller.stage,
        seed=job.seed,
        folder=files.scratch,
        label=label,
        fingerprint=canonical_json([job.model_dump(mode="json"), sums, code]),
        held_out=audio.held_out,
        device=world.device.partition(":")[0],
    )
