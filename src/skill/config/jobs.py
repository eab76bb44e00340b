"""What each command's program receives: sections of `params.yaml`, resolved for one job.

A rule writes its job as JSON into its command (`params.job`, so that what reruns a rule is exactly
what its program receives); `skill.cli` reads it back. Imports no torch: the Snakefile imports this.
"""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from skill.config.methods import Method
from skill.config.params import Activations, Clustering, Params, Similarity, Studies, Unlabelled
from skill.config.pretraining import Pretraining
from skill.config.students import baselines, references, sweeps
from skill.config.tasks import Task, make_task
from skill.config.training import Stage1, Stage2
from skill.config.types import Fraction, Name, NonNegativeInt, PositiveInt, Section
from skill.utils.errors import SkillError


class ActivationsJob(Section):
    """Parameters of the commands `activations` and `regression`."""

    seed: NonNegativeInt
    unlabelled: Unlabelled
    activations: Activations

    @classmethod
    def of(cls, params: Params) -> "ActivationsJob":
        return cls(seed=params.seed, unlabelled=params.unlabelled, activations=params.activations)


class StudyJob(Section):
    """Parameters of the commands `stability` and `sensitivity`."""

    seed: NonNegativeInt
    similarity: Similarity
    clustering: Clustering
    studies: Studies

    @classmethod
    def of(cls, params: Params, student: str) -> "StudyJob":
        s = params.students[student]
        if s.similarity is None or s.clustering is None:
            raise SkillError(f"students.{student}: has no clusters")
        return cls(
            seed=params.seed, similarity=s.similarity, clustering=s.clustering,
            studies=params.studies,
        )  # fmt: skip


class PretrainingJob(Section):
    """Parameters of the command `pretrain`."""

    unlabelled: Unlabelled
    pretraining: Pretraining

    @classmethod
    def of(cls, params: Params, teacher: str) -> "PretrainingJob":
        if teacher not in params.pretraining:
            raise SkillError(f"pretraining.{teacher}: there is no such section")
        return cls(unlabelled=params.unlabelled, pretraining=params.pretraining[teacher])


class Stage1Job(Section):
    """Parameters of the command `stage1`."""

    seed: NonNegativeInt
    teachers: tuple[Name, ...]
    definition: Method
    sparsity: Fraction | None
    unlabelled: Unlabelled
    stage: Stage1

    @classmethod
    def of(cls, params: Params, student: str) -> "Stage1Job":
        s = params.students[student]
        return cls(
            seed=s.seed, teachers=s.teachers, definition=s.definition, sparsity=s.sparsity,
            unlabelled=params.unlabelled, stage=s.stage1,
        )  # fmt: skip


class Stage2Job(Section):
    """Parameters of the command `stage2`."""

    seed: NonNegativeInt
    teachers: tuple[Name, ...]
    definition: Method
    unlabelled: Unlabelled
    stage: Stage2
    first_data_step: NonNegativeInt = 0
    """Steps of stage 1: stage 2 goes on in their order, or it would hear the same audio again."""

    @classmethod
    def of(cls, params: Params, student: str) -> "Stage2Job":
        s = params.students[student]
        return cls(
            seed=s.seed, teachers=s.teachers, definition=s.definition,
            unlabelled=params.unlabelled, stage=s.stage2,
            first_data_step=s.stage1.steps,
        )  # fmt: skip


class TaskJob(Section):
    """Parameters of the command `evaluate`."""

    seed: NonNegativeInt
    task: Task

    @classmethod
    def of(cls, params: Params, upstream: str, task: str) -> "TaskJob":
        seed = params.students[upstream].seed if upstream in params.students else params.seed
        return cls(seed=seed, task=make_task(task, params.superb.tasks[task]))


class Upstream(Section):
    """What a table has to know of one upstream."""

    kind: Literal["student", "teacher", "fbank"]
    method: str = ""
    base: str = ""
    teachers: tuple[Name, ...] = ()
    sparsity: Fraction | None = None
    seed: NonNegativeInt | None = None

    @classmethod
    def of(cls, params: Params, name: str) -> "Upstream":
        s = params.students.get(name)
        if s is None:
            return cls(kind="teacher" if name in params.teachers else "fbank", base=name)
        return cls(
            kind="student", method=s.method, base=s.base, teachers=s.teachers,
            sparsity=s.sparsity, seed=s.seed,
        )  # fmt: skip


class ScoresJob(Section):
    """Parameters of the command `scores`."""

    upstreams: dict[str, Upstream]

    @classmethod
    def of(cls, params: Params, upstreams: Iterable[str]) -> "ScoresJob":
        return cls(upstreams={name: Upstream.of(params, name) for name in upstreams})


class PaperJob(Section):
    """Parameters of the command `table`; students in its mappings without their seeds."""

    upstreams: dict[str, Upstream]
    bootstrap: PositiveInt
    sweeps: dict[str, str] = Field({})
    """Student to the sweep of sparsities that it belongs to (`skill.config.students.sweeps`)."""
    references: dict[str, str] = Field({})
    """Ablation to the student it varies (`skill.config.students.references`)."""
    baselines: dict[str, str] = Field({})
    """Student to the baseline's that it is compared with (`skill.config.students.baselines`)."""

    @classmethod
    def of(cls, params: Params, upstreams: Iterable[str]) -> "PaperJob":
        return cls(
            upstreams={name: Upstream.of(params, name) for name in upstreams},
            bootstrap=params.paper.bootstrap,
            sweeps=sweeps(params.students),
            references=references(params),
            baselines=baselines(params),
        )
