"""What a student learns: the targets that a method's value stands for, with these teachers.

A target is a mean (or concatenation) of teacher layers and the side of the student that learns it.
SKILL's targets are the means of the clusters of layers. Imports no torch, so that the workflow can
check a method before a job starts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from skill.config.methods import Layer, LayerTarget, Method
from skill.utils.errors import SkillError

TeacherLayer = tuple[str, Layer]
State = tuple[str, int]  # a layer of a cluster: teacher and number


@dataclass(frozen=True)
class Target:
    """What one prediction of the student has to equal.

    The target is the mean (or concatenation) of `teacher` layers; the prediction is the projection
    named `projection` (None: none) of the mean of the `student` layers; `weight` is its share in
    the loss, all shares add up to 1. Every student layer counts once, also where layers of several
    teachers are learned by it.
    """

    teacher: tuple[TeacherLayer, ...]
    aggregate: Literal["mean", "concat"]
    student: tuple[Layer, ...]
    projection: str | None
    weight: float


def build_targets(
    method: Method,
    teachers: Mapping[str, tuple[int, int]],
    clusters: Sequence[Sequence[State]] | None = None,
) -> list[Target]:
    """The targets of `method` for these teachers.

    Args:
        teachers: name to (blocks, width); the first one is the teacher that the student starts as.
        clusters: groups of teacher layers, where the method's targets are clusters.

    Raises:
        SkillError: a layer that a teacher or the student does not have, a mean of layers of
            different widths, or clusters that are missing.
    """
    first, (blocks, _) = next(iter(teachers.items()))
    student_blocks = method.start_blocks or blocks
    if student_blocks > blocks:
        raise SkillError(f"start_blocks is {student_blocks}, but {first} has {blocks} blocks")
    if method.targets == "clusters":
        if not clusters:
            raise SkillError("the method's targets are clusters, but there is no clustering")
        targets = [t for c in clusters for t in _cluster_targets(method, list(c), teachers)]
    else:
        targets = [
            t for p in method.targets for t in _layer_targets(method, p, teachers, student_blocks)
        ]
    for target in targets:
        _check(target, teachers, student_blocks)
    total = sum(target.weight for target in targets)
    return [replace(target, weight=target.weight / total) for target in targets]


def _layer_targets(
    method: Method, layer_target: LayerTarget, teachers: Iterable[str], last: int
) -> list[Target]:
    student = layer_target.layer if layer_target.student is None else layer_target.student
    side = last if student == "last" else student
    layers = tuple((name, layer_target.layer) for name in teachers)
    label = f"layer{layer_target.layer}"
    if layer_target.student is not None:
        label += f" by {student}"
    projection = layer_target.projection or label
    if method.across_teachers == "each":
        return [
            Target(
                (layer,),
                "mean",
                (side,),
                projection if len(layers) == 1 else f"{projection}-{layer[0]}",
                1.0,
            )
            for layer in layers
        ]
    return [Target(layers, method.across_teachers, (side,), projection, 1.0)]


def _cluster_targets(
    method: Method, cluster: list[State], teachers: Mapping[str, tuple[int, int]]
) -> list[Target]:
    """Targets of one cluster; their weights add up to 1.

    Layers of teachers of different widths have no common mean: each width has a target of its own.
    A layer of a deeper or flatter teacher is learned by the student's at the same relative depth.
    """
    for name, _ in cluster:
        if name not in teachers:
            raise SkillError(f"the clustering has layers of {name}, which is not a teacher here")
    depth = next(iter(teachers.values()))[0]
    student_layer = {layer: _at_depth(layer, teachers, depth) for layer in cluster}
    numbers = sorted(set(student_layer.values()))
    label = "-".join(f"{name}.{layer}" for name, layer in cluster)
    parts: list[tuple[list[State], tuple[int, ...]]]
    if method.cluster_student == "each":
        parts = [([layer], (student_layer[layer],)) for layer in cluster]
    else:
        side = tuple(numbers) if method.cluster_student == "mean" else (numbers[-1],)
        widths = sorted({teachers[name][1] for name, _ in cluster})
        parts = [([c for c in cluster if teachers[c[0]][1] == w], side) for w in widths]
    targets = []
    for index, (layers, student) in enumerate(parts):
        width = teachers[layers[0][0]][1]
        projection = {
            "own": f"cluster {label}" if len(parts) == 1 else f"cluster {label} {index}",
            "shared": f"shared {width}",
            "none": None,
        }[method.cluster_projection]
        targets.append(Target(tuple(layers), "mean", student, projection, 1 / len(parts)))
    return targets


def _at_depth(layer: State, teachers: Mapping[str, tuple[int, int]], blocks: int) -> int:
    """The layer of the first teacher, as whose copy the student starts, at the depth of `layer`.

    Halves go up, so that no block's output is learned by the student's input.
    """
    name, number = layer
    depth = teachers[name][0]
    return (2 * number * blocks + depth) // (2 * depth)


def _check(target: Target, teachers: Mapping[str, tuple[int, int]], student_blocks: int) -> None:
    for name, layer in target.teacher:
        if layer != "projection" and not 0 <= layer <= teachers[name][0]:
            raise SkillError(f"teacher {name} has no layer {layer} (0 to {teachers[name][0]})")
    for layer in target.student:
        if layer != "projection" and not 0 <= layer <= student_blocks:
            raise SkillError(f"the student has no layer {layer} (0 to {student_blocks})")
    widths = {teachers[name][1] for name, _ in target.teacher}
    if target.aggregate == "mean" and len(widths) > 1:
        raise SkillError(
            f"no mean of layers of widths {sorted(widths)}: use concat or each across teachers"
        )
    student_width = next(iter(teachers.values()))[1]
    if target.projection is None and widths != {student_width}:
        other = max(widths - {student_width})
        raise SkillError(
            f"without a projection, a student of width {student_width} learns none of {other}"
        )
