"""Training of heads: all seeds and learning rates in step, on states that are computed once.

Each seed of a head has its own first weights, its own draws and its own order of the batches: the
order moves a result as much as the first weights do (Bouthillier et al. 2021), so seeds that shared
one would make the intervals too narrow. The learning rates of a seed share a batch. Heads are not
batched into one product: at the sample scale that took as long as one after the other (53 against
51 ms a step for two PR heads, 1.33 against 1.26 for two SID heads, one core), and this way gives a
head the same bits whoever trains beside it.

A step is a pure function of (weights, optimisers, step number), so that a run which is stopped and
started again from its checkpoint ends as one that was not. Each candidate starts from the same
weights and sees the same random draws, whichever others are beside it.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skill.config.tasks import Task
from skill.superb.downstream import Downstream
from skill.superb.examples import Example, batch_order, by_length, cacheable, draw
from skill.superb.feature_cache import FeatureCache
from skill.superb.metrics import METRICS
from skill.training.checkpoints import Checkpoints, restoring
from skill.utils.errors import SkillError
from skill.utils.files import canonical_json
from skill.utils.progress import track

_NEXT_SEED = 100_000  # far beyond the seeds that students have, or two would share a head's


@dataclass
class Candidate:
    """One seed and learning rate: its head, and the best that dev has seen of it."""

    seed: int
    learning_rate: float
    head: nn.Module
    optimizer: torch.optim.Optimizer
    best: float = math.nan
    best_step: int = 0
    best_head: dict[str, Tensor] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)  # step and every dev metric
    skipped: int = 0  # updates left out because a gradient was not finite

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "best_step": self.best_step,
            "best_head": self.best_head,
            "curve": self.curve,
            "skipped": self.skipped,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best, self.best_step = state["best"], state["best_step"]
        self.best_head, self.skipped = state["best_head"], state["skipped"]
        self.curve = state["curve"]


def head_seeds(task: Task, seed: int) -> list[int]:
    """The seeds of a task's heads, the first of which is the upstream's own."""
    return [seed + _NEXT_SEED * number for number in range(task.head_seeds)]


def better(value: float, than: float, metric: str) -> bool:
    """Whether a dev value beats another; anything beats NaN."""
    if math.isnan(than):
        return not math.isnan(value)
    return value < than if METRICS[metric].low_is_good else value > than


def answer(
    downstream: Downstream,
    heads: Sequence[nn.Module],
    features: FeatureCache,
    examples: Sequence[Example],
) -> list[list[Any]]:
    """Each head's answers to `examples`, in their order; one pass over the audio for all heads."""
    by_id: list[dict[str, Any]] = [{} for _ in heads]
    for head in heads:
        head.eval()
    with torch.no_grad():
        for group in by_length(examples, math.inf if features.pooled else features.batch_seconds):
            states, lengths = features.batch(group)
            for head, answers in zip(heads, by_id, strict=True):
                predicted = downstream.predictions(head, states, lengths, group)
                answers.update(zip((e.id for e in group), predicted, strict=True))
    return [[answers[example.id] for example in examples] for answers in by_id]


def fit(
    downstream: Downstream,
    features: FeatureCache,
    task: Task,
    train: Sequence[Example],
    seed: int,
    scratch: Path | None = None,
    identity: str = "",
    label: str = "heads",
) -> list[Candidate]:
    """Train a head per seed and learning rate; keep, for each, the weights that dev liked best.

    The candidates are those of the first seed, `seed` itself, in the order of the rates, then those
    of the second, and so on (`head_seeds`). `scratch` is for checkpoints, None: there
    are none. `identity` says what they belong to; those of anything else are not resumed.

    Raises:
        SkillError: training or dev is empty, or no candidate of a seed was ever updated or had a
            dev value.
    """
    dev = downstream.dev_examples()
    for name, part in (("training", train), ("development", dev)):
        if not part:
            raise SkillError(f"{task.name}: there is no {name} example")
    features.prepare([*dev, *(part for example in train for part in cacheable(example))], label)
    groups = {
        head_seed: [
            _candidate(downstream, features, task, rate, head_seed) for rate in task.learning_rates
        ]
        for head_seed in head_seeds(task, seed)
    }
    candidates = [candidate for group in groups.values() for candidate in group]
    parts = [canonical_json([identity, task.model_dump(), seed]), *(e.id for e in train)]
    identity = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    checkpoints = None if scratch is None else Checkpoints(scratch, identity, is_main=True)
    first = 0 if checkpoints is None else _resume(candidates, checkpoints)
    batches = {s: _batches(task, train, s, first * task.accumulate) for s in groups}
    with track(task.steps, label, first) as progress:
        for step in range(first + 1, task.steps + 1):
            losses = [
                _step(downstream, features, task, group,
                      list(islice(batches[head_seed], task.accumulate)), head_seed, step)
                for head_seed, group in groups.items()
            ]  # fmt: skip
            if step % task.eval_every == 0 or step == task.steps:
                _evaluate(downstream, features, task, candidates, dev, step)
                if checkpoints is not None:
                    checkpoints.save(step, candidates=[c.state() for c in candidates])
            best = [c.best for c in candidates if not math.isnan(c.best)]
            progress.update(step, loss=min(losses), **({"dev": best[0]} if best else {}))
    if any(
        all(math.isnan(c.best) or c.skipped >= task.steps for c in group)
        for group in groups.values()
    ):
        raise SkillError(f"{task.name}: no learning rate gave a finite loss, or result on dev")
    return candidates


def _candidate(
    downstream: Downstream, features: FeatureCache, task: Task, rate: float, seed: int
) -> Candidate:
    torch.manual_seed(seed)
    upstream = features.upstream
    head = downstream.build(upstream.states, upstream.width).to(upstream.device)
    kind = torch.optim.AdamW if task.weight_decay else torch.optim.Adam
    optimizer = kind(head.parameters(), lr=rate, weight_decay=task.weight_decay, foreach=True)
    return Candidate(seed, rate, head, optimizer)


def _batches(task: Task, train: Sequence[Example], seed: int, skip: int) -> Iterator[list[Example]]:
    """The endless row of micro-batches, from number `skip` on."""
    epoch = 0
    while True:
        order = batch_order(task.order, train, task.batch, epoch, seed)
        for number, indices in enumerate(order[skip:], start=skip):
            generator = np.random.default_rng([seed, epoch, number])
            yield [draw(train[i], generator) for i in indices]
        skip = max(0, skip - len(order))
        epoch += 1


def _step(
    downstream: Downstream,
    features: FeatureCache,
    task: Task,
    candidates: Sequence[Candidate],
    micro_batches: Sequence[Sequence[Example]],
    seed: int,
    step: int,
) -> float:
    """One update of every candidate of a seed; the least loss of those whose loss is finite."""
    losses = np.zeros(len(candidates))
    for number, examples in enumerate(micro_batches):
        states, lengths = features.batch(examples)
        for index, candidate in enumerate(candidates):
            candidate.head.train()
            torch.manual_seed(((seed << 40) + (step << 8) + number) % 2**63)
            loss = downstream.loss(candidate.head, states, lengths, examples) / len(micro_batches)
            loss.backward()
            losses[index] += float(loss.detach())
    for candidate in candidates:
        norm = nn.utils.clip_grad_norm_(candidate.head.parameters(), task.clip)
        if torch.isfinite(norm):
            candidate.optimizer.step()
        else:
            candidate.skipped += 1
        candidate.optimizer.zero_grad()
    finite = losses[np.isfinite(losses)]
    return float(finite.min()) if len(finite) else math.nan


def _evaluate(
    downstream: Downstream,
    features: FeatureCache,
    task: Task,
    candidates: Sequence[Candidate],
    dev: Sequence[Example],
    step: int,
) -> None:
    heads = [candidate.head for candidate in candidates]
    of_heads = answer(downstream, heads, features, dev)
    for candidate, answers in zip(candidates, of_heads, strict=True):
        counts = downstream.counts(dev, answers)
        values = {metric: 100 * items.value() for metric, items in counts.items()}
        candidate.curve.append({"step": step, **values})
        if better(values[task.selection], candidate.best, task.selection):
            candidate.best, candidate.best_step = values[task.selection], step
            weights = candidate.head.state_dict()
            candidate.best_head = {name: tensor.clone() for name, tensor in weights.items()}


def _resume(candidates: Sequence[Candidate], checkpoints: Checkpoints) -> int:
    """Step of a checkpoint of this very run, loaded into `candidates`; 0 where there is none."""
    state = checkpoints.load()
    if state is None:
        return 0
    with restoring(checkpoints.folder):
        for candidate, saved in zip(candidates, state["candidates"], strict=True):
            candidate.restore(saved)
    return int(state["step"])
