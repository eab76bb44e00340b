"""What each verb's program receives: sections of `params.yaml`, resolved for one job.

A rule writes its job as JSON into its command; `skill.verbs` reads it back. Imports no torch: the
Snakefile imports this.
"""

from typing import Literal

from pydantic import Field

from skill.config.methods import Method
from skill.config.params import (
    Activations,
    Clustering,
    Pretraining,
    Similarity,
    Stage1,
    Stage2,
    Studies,
    Unlabelled,
)
from skill.config.tasks import Task
from skill.config.types import Count, Name, Section, Share, Some


class ActivationsJob(Section):
    """Parameters of the verb `activations`."""

    seed: Count
    unlabelled: Unlabelled
    activations: Activations


class StudyJob(Section):
    """Parameters of the verbs `stability` and `study`."""

    seed: Count
    similarity: Similarity
    clustering: Clustering
    studies: Studies


class PretrainingJob(Section):
    """Parameters of the verb `pretrain`."""

    unlabelled: Unlabelled
    pretraining: Pretraining


class Stage1Job(Section):
    """Parameters of the verb `stage1`."""

    seed: Count
    teachers: tuple[Name, ...]
    definition: Method
    sparsity: Share | None
    unlabelled: Unlabelled
    stage: Stage1


class Stage2Job(Section):
    """Parameters of the verb `stage2`."""

    seed: Count
    teachers: tuple[Name, ...]
    definition: Method
    unlabelled: Unlabelled
    stage: Stage2
    heard: Count = 0
    """Steps of stage 1: stage 2 goes on in their order, or it would hear the same audio again."""


class TaskJob(Section):
    """Parameters of the verb `superb`."""

    seed: Count
    task: Task


class Upstream(Section):
    """What a table has to know of one upstream."""

    kind: Literal["student", "teacher", "fbank"]
    method: str = ""
    base: str = ""
    teachers: tuple[Name, ...] = ()
    sparsity: Share | None = None
    seed: Count | None = None


class ScoresJob(Section):
    """Parameters of the verb `scores`."""

    upstreams: dict[str, Upstream]


class PaperJob(Section):
    """Parameters of the verb `paper`; students in its mappings without their seeds."""

    upstreams: dict[str, Upstream]
    bootstrap: Some
    sweeps: dict[str, str] = Field({})
    """Student to the sweep of sparsities that it belongs to (`skill.config.students.sweeps`)."""
    references: dict[str, str] = Field({})
    """Ablation to the student it varies (`skill.config.students.references`)."""
    baselines: dict[str, str] = Field({})
    """Student to the baseline's that it is compared with (`skill.config.students.baselines`)."""
