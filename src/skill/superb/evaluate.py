"""One upstream on one task: heads trained, the best chosen on dev, the test set counted.

Under `protocol: superb`, ASV and SD choose on the test set, as published numbers do.

With several folds each chooses its learning rate on its own dev set: what is dev in one fold is
test in another, so a choice by all of them would have seen the test sets. ER's five folds share one
learning rate, chosen by the mean of their dev values, as published numbers do (`fold_mean`).

The result is one JSON: metrics in percent with their bootstrap intervals, the learning rates' dev
values and the learned weight of every state. Beside it lie a table with the counts of every test
item, from which two upstreams can be compared in pairs, and the trained heads, for `predict`.
"""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skill.config.jobs import TaskJob
from skill.config.tasks import UNTRAINED, Task
from skill.data.corpora.superb_files import required_files
from skill.data.manifest import read_manifest
from skill.superb import probes, query_by_example, train_heads
from skill.superb.counts import Counts, Ratio
from skill.superb.datasets import folds_of, search_of
from skill.superb.diarization import Diarization
from skill.superb.downstream import Classification, Downstream, Transcription
from skill.superb.examples import Fold
from skill.superb.feature_cache import FeatureCache
from skill.superb.result import (
    EvaluationResult,
    fold_sizes,
    item_rows,
    metric_with_interval,
    precision_of,
    result_header,
)
from skill.superb.upstream import Upstream, load_upstream
from skill.superb.verification import Verification
from skill.training.checkpoints import forget
from skill.training.machine_check import speech_clip
from skill.utils import provenance
from skill.utils.errors import SkillError
from skill.utils.files import write_csv, write_json, write_tensors

DOWNSTREAM: dict[str, type[Downstream]] = {
    "ctc": Transcription,
    "labels": Classification,
    "verification": Verification,
    "diarization": Diarization,
}


def run(
    upstream: str,
    task: str,
    job: TaskJob,
    encoder: Path | None,
    manifests: Sequence[Path],
    output: Path,
    items: Path,
    head: Path,
    scratch: Path,
) -> None:
    """Evaluate `encoder` (None: FBANK) under the name `upstream`; write the three files.

    Training goes on from the checkpoint that an interrupted run of this very code, data and
    settings left in `scratch`; a finished run leaves none.

    Raises:
        SkillError: a manifest, an audio file or the upstream is no good.
    """
    if job.task.name != task:
        raise SkillError(f"superb {upstream} {task}: the parameters are those of {job.task.name}")
    utterances = [u for path in manifests for u in read_manifest(path)]
    model = load_upstream(
        encoder, job.task.precision, job.task.fbank_cmvn, speech_clip(utterances), scratch
    )
    inputs = [*manifests, *_files(encoder), *required_files(task, job.task.corpora[0])]
    settings = job.task.model_dump(mode="json")
    stamp = provenance.stamp(inputs, {"task": settings, "seed": job.seed}, precision_of(model))
    labels: tuple[tuple[str, ...], ...] = ()
    folds: Sequence[Fold] = ()
    if job.task.kind == "search":
        search = search_of(job.task, utterances)
        outcome = query_by_example.evaluate(model, job.task, search, job.seed)
    else:
        folds = folds_of(job.task, utterances)
        labels = folds[0].labels
        if job.task.kind in UNTRAINED:
            outcome = probes.evaluate(model, job.task, folds[0], job.seed)
        else:
            same = {key: part for key, part in stamp.items() if key != "machine"}  # may move
            identity = f"{upstream} {same} {provenance.fingerprint(__name__)}"
            outcome = evaluate(model, job.task, folds, job.seed, scratch, identity)
    header = {
        "task": settings,
        "labels": labels,
        "upstream": upstream,
        "layer": outcome.result.get("layer"),
        "provenance": stamp,
    }
    write_tensors(head, outcome.tensors, header)
    write_csv(items, outcome.items, list(outcome.items[0]))
    write_json(output, {**outcome.result, "upstream": upstream, "provenance": stamp})
    for number in range(len(folds)):
        forget(scratch / f"fold{number}")


def _files(encoder: Path | None) -> list[Path]:
    if encoder is None:
        return []
    return sorted(encoder.iterdir()) if encoder.is_dir() else [encoder]


def evaluate(
    upstream: Upstream,
    task: Task,
    folds: Sequence[Fold],
    seed: int,
    scratch: Path | None = None,
    identity: str = "",
) -> EvaluationResult:
    """Train, choose and test the heads of `task` on every fold.

    Each seed and fold chooses its learning rate by itself. A metric is the mean over the seeds of
    heads; the tensors, prefixed `foldK.`, are of the first seed.
    """
    kind = DOWNSTREAM[task.kind]
    downstreams = [kind(task, fold, upstream.hop) for fold in folds]
    features = FeatureCache(upstream, kind.pooled, task.cache_gib * 2**30, task.batch_seconds)
    seeds, rates = train_heads.head_seeds(task, seed), len(task.learning_rates)
    trained = []  # [fold][seed of the head][learning rate]
    names: list[tuple[str, Hashable]] = []
    parts: list[list[Counts]] = []  # [fold][seed of the head]
    tensors: dict[str, Tensor] = {}
    weights: list[Tensor] = []
    for number, (fold, downstream) in enumerate(zip(folds, downstreams, strict=True)):
        folder = None if scratch is None else scratch / f"fold{number}"
        label = f"{task.name} fold {number + 1}/{len(folds)}" if len(folds) > 1 else task.name
        candidates = train_heads.fit(
            downstream, features, task, fold.train, seed, folder, identity, label
        )
        trained.append([candidates[n : n + rates] for n in range(0, len(candidates), rates)])
    chosen = _chosen(trained, task)
    for number, (downstream, best) in enumerate(zip(downstreams, chosen, strict=True)):
        heads = [candidate.head for candidate in best]
        for head, candidate in zip(heads, best, strict=True):
            head.load_state_dict(candidate.best_head)
            weights.append(candidate.best_head["featurizer.weights"].softmax(0))
        parts.append(_reported(downstream, heads, features))
        names += downstream.items(downstream.fold.test)
        tensors |= {f"fold{number}.{name}": t for name, t in heads[0].state_dict().items()}
    counts = [_joined(column) for column in zip(*parts, strict=True)]
    result = {
        **result_header(task, upstream, fold_sizes(folds), any(f.synthetic for f in folds)),
        "metrics": {
            name: metric_with_interval(task, name, [of_head[name] for of_head in counts], names)
            for name in counts[0]
        },
        "head_seeds": seeds,
        "learning_rates": [best.learning_rate for row in zip(*chosen, strict=True) for best in row],
        "sweep": sweep_of(trained),
        "state_weights": torch.stack(weights).mean(dim=0).tolist(),
    }
    if task.fold_mean:
        result["folds"] = [
            {name: float(np.mean([100 * c[name].value() for c in row])) for name in row[0]}
            for row in parts
        ]
    if task.kind == "verification":
        result |= _on_test(trained[0], chosen[0])
    return EvaluationResult(
        result, item_rows(names, dict(zip(seeds, counts, strict=True))), tensors
    )


def _chosen(
    trained: Sequence[Sequence[Sequence[train_heads.Candidate]]], task: Task
) -> list[list[train_heads.Candidate]]:
    """[fold][seed of the head] of `trained`, which has the learning rates as a third axis."""
    if not task.fold_mean:
        return [[best_of(group, task.selection) for group in groups] for groups in trained]
    shared = [shared_rate(groups, task.selection) for groups in zip(*trained, strict=True)]
    return [[group[rate] for group, rate in zip(groups, shared, strict=True)] for groups in trained]


def _reported(
    downstream: Downstream, heads: Sequence[nn.Module], features: FeatureCache
) -> list[Counts]:
    """Each head's counts of the test items; one pass over the audio for all heads."""
    dev, test = (
        [
            downstream.counts(part, answers)
            for answers in train_heads.answer(downstream, heads, features, part)
        ]
        for part in (downstream.fold.dev, downstream.fold.test)
    )
    reported = [downstream.choose_reported(*pair) for pair in zip(dev, test, strict=True)]
    return [_weighted(counts) for counts in reported] if downstream.task.fold_mean else reported


def _on_test(
    groups: Sequence[Sequence[train_heads.Candidate]], chosen: Sequence[train_heads.Candidate]
) -> dict[str, Any]:
    """ASV's published practice, the best that any checkpoint had on the test trials, and the last.

    Both are means over the seeds of heads.
    """

    def curve(candidate: train_heads.Candidate) -> list[float]:
        return [row.get("eer_test", row["eer"]) for row in candidate.curve]

    best = [min(min(curve(candidate)) for candidate in group) for group in groups]
    last = [curve(candidate)[-1] for candidate in chosen]
    return {
        "best_on_test": {"eer": float(np.mean(best))},
        "last_checkpoint": {"eer": float(np.mean(last))},
    }


def _joined(parts: Sequence[Counts]) -> Counts:
    """The items of all folds in one row."""
    return {
        name: type(first)(
            np.concatenate([part[name][0] for part in parts]),
            np.concatenate([part[name][1] for part in parts]),
        )
        for name, first in parts[0].items()
    }


def _weighted(counts: Counts) -> Counts:
    """Counts of one fold, so that all folds together give the mean of the folds' ratios."""
    return {
        name: Ratio(part / total.sum(), total / total.sum())
        for name, (part, total) in counts.items()
    }


def best_of(candidates: Sequence[train_heads.Candidate], metric: str) -> train_heads.Candidate:
    """The one with the best dev value, the first of equals."""
    best = candidates[0]
    for candidate in candidates[1:]:
        if train_heads.better(candidate.best, best.best, metric):
            best = candidate
    return best


def shared_rate(trained: Sequence[Sequence[train_heads.Candidate]], metric: str) -> int:
    """The learning rate with the best mean of the folds' dev values, as its number in the sweep."""
    best, best_mean = 0, float("nan")
    for number, candidates in enumerate(zip(*trained, strict=True)):
        mean = float(np.mean([candidate.best for candidate in candidates]))
        if train_heads.better(mean, best_mean, metric):
            best, best_mean = number, mean
    return best


def sweep_of(trained: Sequence[Sequence[Sequence[train_heads.Candidate]]]) -> list[dict[str, Any]]:
    """Per learning rate, the best dev value of each head and the step it was reached at.

    `trained` is by fold, then seed of the head, then learning rate. Values are those of all folds
    of the first seed, then of the second, and so on.
    """
    sweep = []
    for candidates in zip(*(group for row in zip(*trained, strict=True) for group in row),
                          strict=True):  # fmt: skip
        sweep.append(
            {
                "learning_rate": candidates[0].learning_rate,
                "dev": [candidate.best for candidate in candidates],
                "steps": [candidate.best_step for candidate in candidates],
                "skipped_updates": sum(candidate.skipped for candidate in candidates),
            }
        )
    return sweep
