"""From the students as written to the students as trained: defaults, overrides, sweeps, checks.

A student's `stage1`, `stage2`, `similarity` and `clustering` replace single keys of the sections of
that name, `method_overrides` those of its method. Lists are sweeps and give each student a
name of its own: `sparsity: [0.5, 0.75]` NAME-s50 and NAME-s75, `num_clusters` -k4,
`calibration_frames` -n1000, `seeds` -seed1. Imports no torch.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from skill.config.params import Params, Student, StudentEntry
from skill.config.tasks import OFFICIAL_CORPORA, SUPERB_PARTS, make_task
from skill.config.types import Model, parse
from skill.utils.errors import SkillError

_MOST = 1000  # students


def expand(content: Mapping[str, Any]) -> Params:
    """The parameters with every student resolved.

    Raises:
        SkillError: a key, value or reference is wrong; the message has the key's path.
    """
    entries = content.get("students", {})
    if not isinstance(entries, dict):
        raise SkillError("students: has no students")
    base = parse(Params, {**content, "students": {}})
    students: dict[str, Student] = {}
    others: dict[str, list[str]] = {}
    for name, entry in entries.items():
        parsed = parse(StudentEntry, entry, f"students.{name}")
        for student, others[student.name] in _expand(str(name), parsed, base):
            if student.name in students:
                raise SkillError(f"students.{name}: a second student would be named {student.name}")
            students[student.name] = student
            if len(students) > _MOST:
                raise SkillError(f"students: more than {_MOST}")
    params = base.model_copy(update={"students": _with_comparisons(students, others)})
    _check_references(params)
    _check_tasks(params)
    return params


def _expand(name: str, entry: StudentEntry, base: Params) -> Iterator[tuple[Student, list[str]]]:
    """One student per combination of the entry's lists, and whom it may be compared with: of a
    sweep the student of the same values, else the one that is named."""
    path = f"students.{name}"
    if entry.seed is not None and entry.seeds:
        raise SkillError(f"{path}.seeds: give seed or seeds, not both")
    if entry.method not in base.methods:
        raise SkillError(f"{path}.method: there is no method {entry.method} in methods")
    method = _merged(base.methods[entry.method], entry.method_overrides, f"{path}.method_overrides")
    clustered = method.targets == "clusters"
    if bool(method.prune) != (entry.sparsity is not None):
        needs = "needs a sparsity" if method.prune else f"{entry.method} prunes nothing"
        raise SkillError(f"{path}.sparsity: {needs}")
    for key in ("clustering", "similarity", "num_clusters", "calibration_frames"):
        if getattr(entry, key) and not clustered:
            raise SkillError(f"{path}.{key}: {entry.method} has no clusters")
    sweeps: list[list[tuple[str, Any]]] = [
        [(f"-s{100 * value:g}", value) for value in entry.sparsity]
        if isinstance(entry.sparsity, tuple)
        else [("", entry.sparsity)],
        [(f"-k{k}", {"num_clusters": k}) for k in entry.num_clusters] or [("", {})],
        [(f"-n{n}", {"max_frames": n}) for n in entry.calibration_frames] or [("", {})],
        [(f"-seed{seed}", seed) for seed in entry.seeds]
        or [("", base.seed if entry.seed is None else entry.seed)],
    ]
    for (s, sparsity), (k, clusters), (n, frames), (tail, seed) in product(*sweeps):
        similarity = _merged(base.similarity, {**entry.similarity, **frames}, f"{path}.similarity")
        stored = base.activations.max_frames
        if clustered and (similarity.max_frames or 0) > stored:
            key = "calibration_frames" if frames else "similarity.max_frames"
            raise SkillError(
                f"{path}.{key}: {similarity.max_frames} frames, but activations.max_frames keeps "
                f"{stored}"
            )
        clustering = _merged(
            base.clustering, {**entry.clustering, **clusters}, f"{path}.clustering"
        )
        student = parse(
            Student,
            {
                "name": name + s + k + n + tail,
                "base": name + s + k + n,
                "method": entry.method,
                "definition": method,
                "teachers": entry.teachers,
                "sparsity": sparsity,
                "seed": seed,
                "similarity": similarity if clustered else None,
                "clustering": clustering if clustered else None,
                "stage1": _merged(base.stage1, entry.stage1, f"{path}.stage1"),
                "stage2": _merged(base.stage2, entry.stage2, f"{path}.stage2"),
            },
            path,
        )
        other = entry.compare_with
        yield student, [other + tail for tail in (s + k + n, s, "")] if other else []


def _merged(default: Model, override: Mapping[str, Any], path: str) -> Model:
    if not override:
        return default
    return parse(type(default), default.model_dump() | dict(override), path)


def _with_comparisons(
    students: Mapping[str, Student], others: Mapping[str, list[str]]
) -> dict[str, Student]:
    """The students with whom each is compared with: the first of its `others` that there is.

    Raises:
        SkillError: there is none, or no seed that both have.
    """
    seeds: dict[str, set[int]] = {}
    for student in students.values():
        seeds.setdefault(student.base, set()).add(student.seed)
    resolved = {}
    for name, student in students.items():
        other = next((base for base in others[name] if base in seeds), None)
        path = f"students.{student.base}.compare_with"
        if other is None and others[name]:
            raise SkillError(f"{path}: there is no student {others[name][-1]}")
        if other == student.base:
            raise SkillError(f"{path}: a student is not compared with itself")
        if other is not None and not seeds[other] & seeds[student.base]:
            raise SkillError(f"{path}: no seed in common with {other}")
        resolved[name] = student.model_copy(update={"compare_with": other})
    return resolved


def _check_references(params: Params) -> None:
    for index, corpus in enumerate(params.unlabelled.corpora):
        if corpus not in params.corpora:
            raise SkillError(f"unlabelled.corpora.{index}: there is no corpus {corpus} in corpora")
    for name, teacher in params.teachers.items():
        if teacher.retrain and name not in params.pretraining:
            raise SkillError(f"teachers.{name}.retrain: there is no pretraining.{name}")
    for name in {"fbank", *params.teachers} & params.students.keys():
        raise SkillError(f"students.{name}: a teacher or fbank has this name")
    if "fbank" in params.teachers:
        raise SkillError("teachers.fbank: the features have this name")
    for name, student in params.students.items():
        for index, teacher_name in enumerate(student.teachers):
            if teacher_name not in params.teachers:
                raise SkillError(
                    f"students.{name}.teachers.{index}: there is no teacher {teacher_name}"
                    " in teachers"
                )
        if len(set(student.teachers)) < len(student.teachers):
            raise SkillError(f"students.{name}.teachers: a teacher stands twice")


def _check_tasks(params: Params) -> None:
    """Corpora of tasks are there, and those with an official name are what it says."""
    for name, corpus_of in params.corpora.items():
        if name in OFFICIAL_CORPORA and corpus_of.kind != name:
            raise SkillError(
                f"corpora.{name}.kind: {corpus_of.kind}, but tasks take a corpus of this name for "
                "SUPERB's; give it another name"
            )
    for name, settings in params.superb.tasks.items():
        for corpus in make_task(name, settings).corpora:
            if corpus not in params.corpora:
                raise SkillError(
                    f"superb.tasks.{name}.corpora: there is no corpus {corpus} in corpora"
                )
            parts = params.corpora[corpus].parts
            if corpus == "librispeech" and set(parts) != SUPERB_PARTS:
                raise SkillError(
                    f"corpora.librispeech.parts: superb.tasks.{name} needs "
                    f"{', '.join(sorted(SUPERB_PARTS))}; give a corpus of other parts another name"
                )


def sweeps(students: Mapping[str, Student]) -> dict[str, str]:
    """{student without its seed: sweep} for students that differ in their sparsity and seed only.

    The λ's rate may differ, too: it has to fit the sparsity. A sweep is named after its first
    student's entry in `params.yaml`, without the sparsity.
    """
    free: dict[str, Any] = dict.fromkeys(("name", "base", "seed", "sparsity", "compare_with"), True)
    free["stage1"] = {"multiplier_learning_rate"}
    sparsities: dict[str, dict[str, float]] = {}
    roots: dict[str, str] = {}
    for student in students.values():
        if student.sparsity is not None:
            same = student.model_dump_json(exclude=free)
            ending = re.escape(f"-s{100 * student.sparsity:g}")
            roots.setdefault(same, re.sub(rf"{ending}(?=-|$)", "", student.base, count=1))
            sparsities.setdefault(same, {})[student.base] = student.sparsity
    return {
        base: roots[same]
        for same, members in sparsities.items()
        if len(set(members.values())) > 1
        for base in members
    }


def references(params: Params) -> dict[str, str]:
    """{ablation: the student of the same method that it varies}, both without their seeds."""
    return _compared(params, ablation=True)


def baselines(params: Params) -> dict[str, str]:
    """{student: the one of another method that it is compared with}, both without their seeds."""
    return _compared(params, ablation=False)


def _compared(params: Params, *, ablation: bool) -> dict[str, str]:
    methods = {student.base: student.method for student in params.students.values()}
    return {
        student.base: other
        for student in params.students.values()
        if (other := student.compare_with) and (methods[other] == student.method) == ablation
    }
