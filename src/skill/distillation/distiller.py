"""A student that learns to predict its teachers' layers.

Axes: B utterances, T frames, D width.

The student's prediction of a target is a projection of the mean of some of its layers; the target
is the mean (or concatenation) of teacher layers (`skill.config.methods`). Both sides are
accumulated while the layers run, so that a model's states are not kept beyond what the targets
need.

    loss = sum over targets of weight x distance(projection(student), teacher)  + sparsity penalty
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from skill.config.methods import Layer, Method
from skill.config.training import Distilling, Stage1
from skill.data.batches import Batch
from skill.distillation.gates import is_gate
from skill.distillation.losses import distance
from skill.distillation.sparsity import SparsityTarget
from skill.distillation.targets import Target
from skill.encoder import SpeechEncoder


class Projection(nn.Module):
    """From the student's width to a target's: DPHuBERT's linear map, or DistilHuBERT's head."""

    def __init__(self, width: int, target_width: int, head: str) -> None:
        super().__init__()
        if head == "mlp":
            self.map: nn.Module = nn.Sequential(
                nn.Linear(width, width), nn.GELU(), nn.Linear(width, target_width)
            )
        else:
            linear = nn.Linear(width, target_width)
            nn.init.eye_(linear.weight)
            nn.init.zeros_(linear.bias)
            self.map = linear

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D of the target]."""
        return self.map(x)


def layer_means(
    states: Iterable[tuple[Layer, Tensor]], groups: Sequence[Sequence[Layer]]
) -> list[Tensor]:
    """The mean over each group of layers, accumulated while `states` yields them.

    Args:
        states: (layer, [B, T, D]) in the order of `SpeechEncoder.iterate`.
        groups: layers of each mean; the work stops after the last layer that one needs.

    Returns:
        One [B, T, D] per group.

    Raises:
        ValueError: a layer that `states` did not yield.
    """
    missing = {layer for group in groups for layer in group}
    sums: list[Tensor | None] = [None] * len(groups)
    for layer, state in states:
        for index, group in enumerate(groups):
            if layer in group:
                total = sums[index]
                sums[index] = state if total is None else total + state
        missing.discard(layer)
        if not missing:
            break
    if missing:
        raise ValueError(f"no such layers: {sorted(map(str, missing))}")
    return [
        total / len(group) for total, group in zip(sums, groups, strict=True) if total is not None
    ]


def projection_key(name: str) -> str:
    """A projection's name as a module name: no dots, and no attribute of torch's dictionary."""
    return "to " + name.replace(".", "·")


class Distiller(nn.Module):
    """A student, its projections and, in stage 1, its gates: what the loop trains."""

    def __init__(
        self,
        student: SpeechEncoder,
        teachers: Mapping[str, SpeechEncoder],
        targets: Sequence[Target],
        method: Method,
        stage: Distilling,
        sparsity: SparsityTarget | None = None,
    ) -> None:
        """`sparsity`: what the gates of `student` are to reach; None where it has none."""
        super().__init__()
        self.stage = stage
        self.student = student
        self._teachers = {
            n: teacher.eval().requires_grad_(False) for n, teacher in teachers.items()
        }
        self.targets, self.method = list(targets), method
        self.distances = method.distances.model_dump()
        self.sparsity = sparsity
        self.projections = nn.ModuleDict()
        for target in self.targets:
            if target.projection is not None:
                key = projection_key(target.projection)
                width = self.target_width(target)
                if key not in self.projections:
                    self.projections[key] = Projection(student.config.width, width, method.head)
        if stage.compile:
            for encoder in (student, *teachers.values()):
                for block in encoder.blocks:
                    block.compile(dynamic=True)  # lengths differ from step to step

    def target_width(self, target: Target) -> int:
        """The width of a target: its layers' width, or the sum of them for a concatenation."""
        widths = [self._teachers[name].config.width for name, _ in target.teacher]
        return sum(widths) if target.aggregate == "concat" else widths[0]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Weights descend; log α descends and λ ascends at their own rates (stage 1)."""
        logits = [p for name, p in self.student.named_parameters() if is_gate(name)]
        multipliers = [] if self.sparsity is None else list(self.sparsity.parameters())
        others = {id(p) for p in [*logits, *multipliers]}
        weights = [p for p in self.parameters() if id(p) not in others and p.requires_grad]
        groups: list[dict[str, Any]] = [{"params": weights, "lr": self.stage.learning_rate}]
        if self.sparsity is not None:
            assert isinstance(self.stage, Stage1)
            rate = self.stage.gate_learning_rate
            groups.append({"params": logits, "lr": rate})
            if self.stage.multiplier_learning_rate is not None:
                rate = self.stage.multiplier_learning_rate
            groups.append({"params": multipliers, "lr": rate, "maximize": True})
        return groups

    def begin_step(self, step: int) -> None:
        """Modes: the student's dropout is on, the teachers' is off."""
        self.train()

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The distillation loss, its share per target, and the sparsity terms of stage 1."""
        losses = self.distill(batch.waveforms)
        if self.sparsity is not None:
            penalty, expected = self.sparsity(self.student, step)
            losses["loss"] = losses["loss"] + penalty
            losses["sparsity"] = expected.detach()
            losses |= self.sparsity.figures(step)
        return losses

    def validation_losses(self, batch: Batch) -> dict[str, Tensor]:
        """The distillation loss alone, with gates as in evaluation."""
        return {"loss": self.distill(batch.waveforms)["distillation"]}

    def distill(self, waveforms: Tensor) -> dict[str, Tensor]:
        """Losses of a batch of waveforms of equal length [B, S]."""
        teacher_means = self._teacher_targets(waveforms)
        student_means = layer_means(
            self.student.iterate(waveforms), [target.student for target in self.targets]
        )
        losses: dict[str, Tensor] = {}
        total = torch.zeros((), device=waveforms.device)
        for index, (target, prediction, mean) in enumerate(
            zip(self.targets, student_means, teacher_means, strict=True)
        ):
            if target.projection is not None:
                prediction = self.projections[projection_key(target.projection)](prediction)
            loss = distance(prediction, mean, self.distances)
            total = total + target.weight * loss
            losses[f"target{index}"] = loss.detach()
        return {"loss": total, "distillation": total.detach()} | losses

    @torch.no_grad()
    def _teacher_targets(self, waveforms: Tensor) -> list[Tensor]:
        """[B, T, D] for every target: one pass of every teacher."""
        parts: list[list[Tensor]] = [[] for _ in self.targets]
        for name, teacher in self._teachers.items():
            groups = {
                index: [layer for owner, layer in target.teacher if owner == name]
                for index, target in enumerate(self.targets)
            }
            groups = {index: layers for index, layers in groups.items() if layers}
            if not groups:
                continue
            means = layer_means(teacher.iterate(waveforms), list(groups.values()))
            for (index, layers), mean in zip(groups.items(), means, strict=True):
                target = self.targets[index]
                if target.aggregate == "mean":
                    mean = mean * (len(layers) / len(target.teacher))
                parts[index].append(mean)
        return [
            torch.cat(parts[index], dim=-1)
            if target.aggregate == "concat"
            else torch.stack(parts[index]).sum(0)
            for index, target in enumerate(self.targets)
        ]
