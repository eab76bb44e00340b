"""What a run makes and what each of it is made from, for the workflow and for
`skill.workflow.costs`.

Imports no torch: the Snakefile imports this.
"""

from skill.config.params import Params, Similarity, Student
from skill.config.students import baselines, references, sweeps
from skill.config.tasks import Task, make_task, official
from skill.superb.score import REFERENCE_POINTS
from skill.utils.files import checkout_path

PHASES = (
    "corpora", "teachers", "activations", "similarity", "clustering", "stage1", "stage2", "superb",
    "paper", "studies",
)  # fmt: skip
"""Folders below results/, in the order in which they are made."""


def clustered_students(params: Params) -> list[Student]:
    """The students whose targets are clusters."""
    return [student for student in params.students.values() if student.clustering]


def matrix(student: Student, params: Params) -> str:
    """The student's similarity matrix: shared, unless it has settings of its own."""
    shared = student.similarity == params.similarity
    return "+".join(student.teachers) if shared else student.name


def matrices(params: Params) -> dict[str, tuple[tuple[str, ...], Similarity | None]]:
    """Teachers and settings of similarity matrices. Every teacher has one of its own to look at."""
    return {name: ((name,), params.similarity) for name in params.teachers} | {
        matrix(s, params): (s.teachers, s.similarity) for s in clustered_students(params)
    }


def trees(params: Params) -> list[str]:
    """Students with clusters of their own: of those with the same ones the first."""
    first_students = {
        (matrix(s, params), s.clustering): s.name for s in reversed(clustered_students(params))
    }
    return list(first_students.values())


def tasks(params: Params) -> dict[str, Task]:
    """The tasks with all their settings."""
    return {name: make_task(name, settings) for name, settings in params.superb.tasks.items()}


def upstreams(params: Params) -> list[str]:
    """What the tasks evaluate."""
    beside = params.superb.upstreams
    teachers = list(params.teachers) if beside.teachers else []
    return [*params.students, *teachers, *(["fbank"] if beside.fbank else [])]


def tables(params: Params) -> list[str]:
    """Tables to read; Table 1, which has published results, where ours may stand beside them."""
    settings = tasks(params)
    comparable = all(name in settings and official(settings[name]) for name in REFERENCE_POINTS)
    return ["results", "table1"] if comparable else ["results"]


def figures(params: Params) -> dict[str, list[str]]:
    """What each figure is drawn from, in the order of the paper."""
    scores, comparisons = "results/superb/scores.csv", "results/paper/comparisons.csv"
    students, ablations = params.students, references(params)
    # Curves and the like have a place for a few students only.
    compared = [name for name, s in students.items() if s.base not in ablations]
    sources = {
        f"similarity-{name}": [f"results/similarity/{name}.csv"] for name in matrices(params)
    }
    sources |= {f"dendrogram-{name}": [f"results/clustering/{name}.csv"] for name in trees(params)}
    sources |= {
        "curves": [f"results/{s}/{name}.csv" for name in compared for s in ("stage1", "stage2")],
        "layers": [f"results/stage1/{n}.{k}" for n in students for k in ("json", "safetensors")],
        "regression": [f"results/paper/regression/{name}.csv" for name in compared],
        "size": [scores],
        "published": [scores, str(checkout_path("data/published.csv"))],
    }
    probed = [name for name, task in tasks(params).items() if task.kind in ("frames", "abx")]
    per_state = [f"results/superb/{u}/{task}.json" for task in probed for u in upstreams(params)]
    sources |= {"probes": per_state} if probed else {}
    sources |= {"sparsity": [scores]} if sweeps(students) else {}
    sources |= {"methods": [comparisons]} if baselines(params) else {}
    sources |= {"ablation": [comparisons]} if ablations else {}
    return sources
