"""What an evaluation gives: its JSON, the table of test items, and the heads' tensors."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from skill.config.tasks import (
    CHOSEN_ON_TEST,
    UNCONFIRMED,
    Task,
    has_protocol_values,
    official,
)
from skill.superb.counts import Counts, ItemCounts
from skill.superb.examples import Fold
from skill.superb.metrics import metric_of
from skill.superb.upstream import Encoder, Fbank, Upstream
from skill.utils.bootstrap import Resampled
from skill.utils.uncertainty import estimate, pooled, voices


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation gives: the JSON, the table of items, and the heads' tensors."""

    result: dict[str, Any]
    items: list[dict[str, Any]]
    tensors: dict[str, Tensor]


def fold_sizes(folds: Sequence[Fold]) -> dict[str, Any]:
    """Numbers of examples and classes, seconds of training, and what was left out."""
    return {
        **{part: [len(getattr(f, part)) for f in folds] for part in ("train", "dev", "test")},
        "classes": [len(names) for names in folds[0].labels],
        "train_seconds": [sum(e.samples for e in fold.train) / 16000 for fold in folds],
        "left_out": folds[0].left_out,
    }


def result_header(
    task: Task, upstream: Upstream, examples: Mapping[str, Any], synthetic: bool
) -> dict[str, Any]:
    """What a result says about its task, data (sizes of `examples`) and upstream."""
    parameters = upstream.encoder.num_parameters() if isinstance(upstream, Encoder) else 0
    return {
        "task": task.name,
        "title": task.title,
        "protocol": task.protocol if task.kind in CHOSEN_ON_TEST else None,
        "official": official(task),
        "unconfirmed": UNCONFIRMED.get(task.name) if has_protocol_values(task) else None,
        "synthetic": synthetic,
        "examples": examples,
        "fbank_cmvn": upstream.cmvn if isinstance(upstream, Fbank) else None,
        "model": {"states": upstream.states, "width": upstream.width, "parameters": parameters},
        "precision": precision_of(upstream),
    }


def precision_of(upstream: Upstream) -> str:
    """What the upstream's states are computed in; log-mel features know float32 only."""
    return upstream.precision if isinstance(upstream, Encoder) else "float32"


def metric_with_interval(
    task: Task,
    name: str,
    counts: Sequence[ItemCounts],
    items: Sequence[tuple[str, Hashable]],
) -> dict[str, Any]:
    """A metric of the heads, whose `counts` are given one by one; see `measurement`."""
    clusters = [cluster for _, cluster in items]
    heads = [of_head.resampled(clusters, task.bootstrap) for of_head in counts]
    return measurement(name, heads, len(items))


def measurement(name: str, heads: Sequence[Resampled], items: int) -> dict[str, Any]:
    """A metric's mean over heads, and its 95 % interval over the voices of the items and the heads.

    `error` is the standard error over voices alone, `heads` the value of each head.
    """
    metric = metric_of(name)
    scale = 100 if metric.unit else 1
    mean = estimate({0: heads}, pooled([[head.value for head in heads]]))
    low, high = mean.interval()
    return {
        "value": scale * mean.value,
        **limited(name, scale * low, scale * high),
        "error": scale * voices(heads).value ** 0.5,
        "heads": [scale * head.value for head in heads],
        "items": items,
        "clusters": heads[0].clusters,
        "low_is_good": metric.low_is_good,
        "unit": metric.unit,
    }


def limited(name: str, low: float, high: float) -> dict[str, float]:
    """The ends of an interval, no farther than the metric goes: a share is within 0 and 100 %."""
    metric = metric_of(name)
    if not metric.unit:
        return {"low": low, "high": high}
    return {"low": max(0.0, low), "high": min(100.0, high) if metric.share else high}


def item_rows(
    items: Sequence[tuple[str, Hashable]], counts: Mapping[int, Counts]
) -> list[dict[str, Any]]:
    """One row per test item and seed of a head, sorted: cluster, and each metric's two numbers."""
    rows = []
    for seed, of_head in counts.items():
        for index, (name, cluster) in enumerate(items):
            row: dict[str, Any] = {"id": name, "cluster": cluster, "head_seed": seed}
            for metric, (first, second) in of_head.items():
                row |= {metric: float(first[index]), f"{metric}_of": float(second[index])}
            rows.append(row)
    return sorted(rows, key=lambda row: (str(row["id"]), row["head_seed"]))
