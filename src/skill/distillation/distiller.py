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
from skill.distillation import gates
from skill.distillation.compaction import compacted, lasting, shaped
from skill.distillation.losses import distance
from skill.distillation.pruning import cut
from skill.distillation.targets import Target
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.training.loop import Micro, adamw


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


class Distillation(nn.Module):
    """A student, its projections and, in stage 1, its gates: what the loop trains."""

    def __init__(
        self,
        student: SpeechEncoder,
        teachers: Mapping[str, SpeechEncoder],
        targets: Sequence[Target],
        method: Method,
        *,
        learning_rate: float,
        pruning: "gates.SparsityTarget | None" = None,
        gate_learning_rate: float = 0.0,
        multiplier_learning_rate: float | None = None,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.compiled = compiled
        self.student = self._ready(student)
        self._teachers = {
            name: self._ready(t.eval().requires_grad_(False)) for name, t in teachers.items()
        }
        self.targets, self.method = list(targets), method
        self.distances = method.distances.model_dump()
        self.pruning = pruning
        self.learning_rate, self.gate_learning_rate = learning_rate, gate_learning_rate
        slower = multiplier_learning_rate
        self.multiplier_learning_rate = gate_learning_rate if slower is None else slower
        self.projections = nn.ModuleDict()
        for target in self.targets:
            if target.projection is not None:
                key = projection_key(target.projection)
                width = self.target_width(target)
                if key not in self.projections:
                    self.projections[key] = Projection(student.config.width, width, method.head)

    def _ready(self, encoder: SpeechEncoder) -> SpeechEncoder:
        """Compile the blocks, in place, if that was asked for; lengths differ from step to step."""
        if self.compiled:
            for block in encoder.blocks:
                block.compile(dynamic=True)
        return encoder

    def target_width(self, target: Target) -> int:
        """The width of a target: its layers' width, or the sum of them for a concatenation."""
        widths = [self._teachers[name].config.width for name, _ in target.teacher]
        return sum(widths) if target.aggregate == "concat" else widths[0]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Weights descend; log α descends and λ ascends at their own rates (stage 1)."""
        logits = [p for name, p in self.student.named_parameters() if gates.is_gate(name)]
        known = {id(p) for p in logits}
        pruning = [] if self.pruning is None else list(self.pruning.parameters())
        known |= {id(p) for p in pruning}
        weights = [p for p in self.parameters() if id(p) not in known and p.requires_grad]
        groups: list[dict[str, Any]] = [{"params": weights, "lr": self.learning_rate}]
        if self.pruning is not None:
            groups.append({"params": logits, "lr": self.gate_learning_rate})
            rate = self.multiplier_learning_rate
            groups.append({"params": pruning, "lr": rate, "maximize": True})
        return groups

    def compact(self, optimizer: torch.optim.AdamW) -> torch.optim.AdamW | None:
        """Remove units whose gates stay shut (`skill.distillation.compaction`).

        Returns:
            An optimiser for what is left, with the moments of `optimizer`; None: nothing went.
        """
        assert self.pruning is not None
        kept = lasting(self.student, (1 - self.pruning.sparsity) * self.pruning.full)
        if kept is None:
            return None
        moments = {name: optimizer.state[p] for name, p in self.named_parameters()}
        for key in ("exp_avg", "exp_avg_sq"):
            names = {n.removeprefix("student."): n for n in moments if n.startswith("student.")}
            whole = {short: moments[n][key] for short, n in names.items() if key in moments[n]}
            for short, value in cut(whole, kept, self.student.config.head_width).items():
                moments[names[short]][key] = value
        self.student = self._ready(compacted(self.student, kept))
        optimizer = adamw(self.parameter_groups())
        for name, parameter in self.named_parameters():
            if moments.get(name):
                optimizer.state[parameter] = moments[name]
        return optimizer

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the tensors: the shape that compaction has left."""
        return self.student.config.to_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Nothing: `load_state_dict` needs the shape before the tensors."""

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Take over a checkpoint, of a compacted student too."""
        config = EncoderConfig.from_dict(state_dict["_extra_state"])
        if config != self.student.config:
            self.student = self._ready(shaped(self.student, config))
        return super().load_state_dict(state_dict, strict, assign)

    def begin_step(self, step: int) -> None:
        """Modes: the student's dropout is on, the teachers' is off."""
        self.train()

    def losses(self, micro: Micro, step: int) -> dict[str, Tensor]:
        """The distillation loss, its share per target, and the sparsity terms of stage 1."""
        figures = self.distill(micro.waveforms)
        if self.pruning is not None:
            penalty, sparsity = self.pruning(self.student, step)
            figures["loss"] = figures["loss"] + penalty
            figures["sparsity"] = sparsity.detach()
            figures |= self.pruning.figures(step)
        return figures

    def distill(self, waveforms: Tensor) -> dict[str, Tensor]:
        """Losses of a batch of waveforms of equal length [B, S]."""
        wanted = self._teacher_targets(waveforms)
        predictions = layer_means(
            self.student.iterate(waveforms), [target.student for target in self.targets]
        )
        figures: dict[str, Tensor] = {}
        total = torch.zeros((), device=waveforms.device)
        for index, (target, prediction, want) in enumerate(
            zip(self.targets, predictions, wanted, strict=True)
        ):
            if target.projection is not None:
                prediction = self.projections[projection_key(target.projection)](prediction)
            loss = distance(prediction, want, self.distances)
            total = total + target.weight * loss
            figures[f"target{index}"] = loss.detach()
        return {"loss": total, "distillation": total.detach()} | figures

    @torch.no_grad()
    def _teacher_targets(self, waveforms: Tensor) -> list[Tensor]:
        """[B, T, D] for every target: one pass of every teacher."""
        parts: list[list[Tensor]] = [[] for _ in self.targets]
        for name, teacher in self._teachers.items():
            groups, places = [], []
            for index, target in enumerate(self.targets):
                layers = [layer for n, layer in target.teacher if n == name]
                if layers:
                    groups.append(layers)
                    places.append((index, len(layers)))
            if not groups:
                continue
            means = layer_means(teacher.iterate(waveforms), groups)
            for (index, count), mean in zip(places, means, strict=True):
                share = self.targets[index].aggregate == "concat"
                parts[index].append(
                    mean if share else mean * (count / len(self.targets[index].teacher))
                )
        return [
            torch.cat(parts[index], dim=-1)
            if target.aggregate == "concat"
            else torch.stack(parts[index]).sum(0)
            for index, target in enumerate(self.targets)
        ]
