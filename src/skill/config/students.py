"""From the students as written to the students as trained: defaults, overrides, sweeps, checks.

A student's `stage1`, `stage2`, `similarity`, `clustering` and `objective` replace single keys of
the sections of that name (`objective`: of its method). Lists are sweeps and give each student a
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


def expand(written: Mapping[str, Any]) -> Params:
    """The parameters with every student resolved.

    Raises:
        SkillError: a key, value or reference is wrong; the message has the key's path.
    """
    entries = written.get("students", {})
    if not isinstance(entries, dict):
        raise SkillError("students: has no students")
    base = parse(Params, {**written, "students": {}})
    students: dict[str, Student] = {}
    for name, entry in entries.items():
        for student in _expand(str(name), parse(StudentEntry, entry, f"students.{name}"), base):
            if student.name in students:
                raise SkillError(f"students.{name}: a second student would be named {student.name}")
            students[student.name] = student
    params = parse(
        Params, base.model_dump() | {"students": {k: v.model_dump() for k, v in students.items()}}
    )
    _check_references(params)
    _check_comparisons(params)
    _check_tasks(params)
    return params


def _expand(name: str, entry: StudentEntry, base: Params) -> Iterator[Student]:
    """One student per combination of the entry's lists."""
    path = f"students.{name}"
    if entry.seed is not None and entry.seeds:
        raise SkillError(f"{path}.seeds: give seed or seeds, not both")
    if entry.method not in base.methods:
        raise SkillError(f"{path}.method: there is no method {entry.method} in methods")
    method = _merged(base.methods[entry.method], entry.objective, f"{path}.objective")
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
        yield parse(
            Student,
            {
                "name": name + s + k + n + tail,
                "base": name + s + k + n,
                "method": entry.method,
                "definition": method.model_dump(),
                "teachers": entry.teachers,
                "sparsity": sparsity,
                "seed": seed,
                "similarity": similarity.model_dump() if clustered else None,
                "clustering": clustering.model_dump() if clustered else None,
                "stage1": _merged(base.stage1, entry.stage1, f"{path}.stage1").model_dump(),
                "stage2": _merged(base.stage2, entry.stage2, f"{path}.stage2").model_dump(),
            },
            path,
        )


def _merged(default: Model, override: Mapping[str, Any], path: str) -> Model:
    return parse(type(default), default.model_dump() | dict(override), path)


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
    if params.paper.baseline not in (None, *params.methods):
        raise SkillError(f"paper.baseline: there is no method {params.paper.baseline} in methods")


def _check_comparisons(params: Params) -> None:
    """Whoever is compared has a seed in common with the other."""
    seeds: dict[str, set[int]] = {}
    for student in params.students.values():
        seeds.setdefault(student.base, set()).add(student.seed)
    for base, other in {**baselines(params), **references(params)}.items():
        if not seeds[base] & seeds[other]:
            raise SkillError(
                f"students.{base}: has no seed in common with {other}, which it is compared with"
            )


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
    free: dict[str, Any] = dict.fromkeys(("name", "base", "seed", "sparsity"), True)
    free["stage1"] = {"multiplier_learning_rate"}
    found: dict[str, dict[str, float]] = {}
    roots: dict[str, str] = {}
    for student in students.values():
        if student.sparsity is not None:
            same = student.model_dump_json(exclude=free)
            ending = re.escape(f"-s{100 * student.sparsity:g}")
            roots.setdefault(same, re.sub(rf"{ending}(?=-|$)", "", student.base, count=1))
            found.setdefault(same, {})[student.base] = student.sparsity
    return {
        base: roots[same]
        for same, members in found.items()
        if len(set(members.values())) > 1
        for base in members
    }


def references(params: Params) -> dict[str, str]:
    """{student: the one it is an ablation of}, both without their seeds.

    An ablation has a key of its own in its method, similarity, clustering or a stage; what it is
    compared with has none, and the same method, teachers and sparsity.
    """
    plain: dict[tuple[Any, ...], str] = {}
    varied: list[Student] = []
    for s in params.students.values():
        defaults = (
            s.definition == params.methods[s.method]
            and s.similarity in (None, params.similarity)
            and s.clustering in (None, params.clustering)
            and (s.stage1, s.stage2) == (params.stage1, params.stage2)
        )
        if defaults:
            plain.setdefault((s.method, s.teachers, s.sparsity), s.base)
        else:
            varied.append(s)
    keys = {s.base: (s.method, s.teachers, s.sparsity) for s in varied}
    return {base: plain[key] for base, key in keys.items() if key in plain}


def baselines(params: Params) -> dict[str, str]:
    """{student: the baseline's student it is compared with}, both without their seeds.

    That is the nearest: the same teachers, else the same first one, then the nearest sparsity.
    Ablations have a reference of their own.
    """
    ablations = references(params)
    plain = [s for s in params.students.values() if s.base not in ablations]
    theirs = [s for s in plain if s.method == params.paper.baseline]

    def likeness(s: Student, other: Student) -> tuple[bool, bool, float]:
        # two blocks of twelve with the convolutions are a quarter of a Base model
        gap = abs((s.sparsity or 0.75) - (other.sparsity or 0.75))
        return s.teachers == other.teachers, s.teachers[0] == other.teachers[0], -gap

    return {
        s.base: max(theirs, key=lambda other: likeness(s, other)).base
        for s in plain
        if theirs and s not in theirs
    }
