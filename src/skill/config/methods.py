"""Distillation methods as data: SKILL, DPHuBERT, DistilHuBERT and EKD are values of one type.

`params.yaml` writes the values (section `methods`); `skill.distillation.targets` turns one into the
list of targets that the distillation learns. A layer is a state's number, 0…N, or "projection": the
feature projection's output, which DPHuBERT's code calls layer 0.

| method | start | pruned | targets | student side | distance |
|---|---|---|---|---|---|
| SKILL | teacher | yes | mean of each cluster of layers | mean of the same layers | L1 − cos |
| DPHuBERT | teacher | yes | projection, 4, 8, 12 | the same layer | L1 − cos |
| DistilHuBERT | first 2 blocks | no | 4, 8, 12 | last state, one head each | L1 − log σ(cos) |
| EKD | first 2 blocks | no | 4, 8, 12 of several teachers (1) | last state | L1 − log σ(cos) |

(1) Their mean, their concatenation, or one head for each teacher. What EKD's authors used beside
several teachers could not be seen; the rest of the row is DistilHuBERT's.

Imports no torch, so that the workflow can check a method when it is parsed.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from skill.config.types import Name, NonNegativeFloat, NonNegativeInt, PositiveInt, Section

Layer = NonNegativeInt | Literal["projection"]


class Distances(Section):
    """Weights of the distances between a prediction and its target
    (`skill.distillation.losses`)."""

    l1: NonNegativeFloat = 0.0
    """Mean absolute difference."""
    l2: NonNegativeFloat = 0.0
    """Mean squared difference."""
    cosine: NonNegativeFloat = 0.0
    """1 − cosine similarity, a frame at a time."""
    log_sigmoid_cosine: NonNegativeFloat = 0.0
    """−log σ of the cosine similarity, a frame at a time."""

    @model_validator(mode="after")
    def _some(self) -> "Distances":
        if not any(weight for _, weight in self):
            raise ValueError("no distance has a weight above 0, so nothing would be learned")
        return self


class LayerTarget(Section):
    """A hand-picked target: one teacher layer, and the student layer that learns it."""

    layer: Layer
    """Of the teacher: a state's number, 0 to N, or the feature projection's output."""
    student: Layer | Literal["last"] | None = None
    """None: the layer of the same number."""
    projection: Name | None = None
    """Targets that name the same projection share it; None: one for this layer and student side."""


class Method(Section):
    """How a student learns from its teachers."""

    start_blocks: PositiveInt | None = None
    """The student starts as the first teacher's first n blocks; None: as the whole teacher."""
    prune: tuple[Literal["conv", "head", "ffn", "attention_layer", "ffn_layer"], ...] = ()
    """What stage 1 puts gates on; empty: nothing is pruned."""
    targets: Literal["clusters"] | Annotated[tuple[LayerTarget, ...], Field(min_length=1)]
    """What is learned: the mean of each cluster of layers, or hand-picked layers."""
    cluster_student: Literal["mean", "single", "each"] = "mean"
    """Student side of a cluster: the mean of its layers, its last layer alone (ablation), or each
    layer of the cluster by itself, weighted so that a cluster counts once (ablation)."""
    cluster_projection: Literal["own", "shared", "none"] = "own"
    """Linear map from a cluster's student side to its target: one each, one for all, or none."""
    across_teachers: Literal["mean", "concat", "each"] = "mean"
    """One layer of several teachers, for hand-picked targets: their mean, their concatenation, or
    one target per teacher."""
    head: Literal["linear", "mlp"] = "linear"
    """A projection: one linear map that starts as the identity (DPHuBERT), or linear, GELU, linear
    (DistilHuBERT)."""
    distances: Distances
    """What is minimised between prediction and target."""

    @model_validator(mode="after")
    def _whole(self) -> "Method":
        if self.targets == "clusters" and self.start_blocks is not None:
            raise ValueError("targets are clusters of all layers, which start_blocks does not have")
        return self
