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
from torch import Tensor

from skill.config.jobs import TaskJob
from skill.config.tasks import UNTRAINED, Task
from skill.data.corpora.superb_files import needed
from skill.data.manifest import read_manifest
from skill.superb import probes, query_by_example, train_heads
from skill.superb.datasets import folds_of, search_of
from skill.superb.diarization import Diarization
from skill.superb.downstream import Classification, Counts, Downstream, Transcription, value
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
    model = load_upstream(encoder, job.task.precision, job.task.fbank_cmvn)
    utterances = [u for path in manifests for u in read_manifest(path)]
    inputs = [*manifests, *_files(encoder), *needed(task, job.task.corpora[0])]
    settings = job.task.model_dump(mode="json")
    stamp = provenance.stamp(inputs, {"task": settings, "seed": job.seed}, precision_of(model))
    labels: tuple[tuple[str, ...], ...] = ()
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
    for checkpoint in scratch.glob("fold*.pt"):
        checkpoint.unlink()


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
    """Train, choose and test the heads of `task` on every fold; tensors are prefixed `foldK.`."""
    kind = DOWNSTREAM[task.kind]
    downstreams = [kind(task, fold, upstream.hop) for fold in folds]
    features = FeatureCache(upstream, kind.pooled, task.cache_gib * 2**30, task.batch_seconds)
    trained = []
    for number, (fold, downstream) in enumerate(zip(folds, downstreams, strict=True)):
        checkpoint = None if scratch is None else scratch / f"fold{number}.pt"
        label = f"{task.name} fold {number + 1}/{len(folds)}" if len(folds) > 1 else task.name
        trained.append(
            train_heads.fit(
                downstream, features, task, fold.train, seed, checkpoint, identity, label
            )
        )
    names: list[tuple[str, Hashable]] = []
    parts: list[Counts] = []
    tensors: dict[str, Tensor] = {}
    if task.fold_mean:
        shared = shared_rate(trained, task.selection)
        chosen = [candidates[shared] for candidates in trained]
    else:
        chosen = [best_of(candidates, task.selection) for candidates in trained]
    for number, (downstream, best) in enumerate(zip(downstreams, chosen, strict=True)):
        head = best.head
        head.load_state_dict(best.best_head)
        dev, test = (
            downstream.counts(part, train_heads.answer(downstream, [head], features, part)[0])
            for part in (downstream.fold.dev, downstream.fold.test)
        )
        parts.append(_weighted(downstream.choose_reported(dev, test)) if task.fold_mean else
                     downstream.choose_reported(dev, test))  # fmt: skip
        names += downstream.items(downstream.fold.test)
        tensors |= {f"fold{number}.{name}": t for name, t in head.state_dict().items()}
    counts = _joined(parts)
    weights = torch.stack(
        [tensors[f"fold{n}.featurizer.weights"].softmax(0) for n in range(len(folds))]
    )
    result = {
        **result_header(task, upstream, fold_sizes(folds), any(f.synthetic for f in folds)),
        "metrics": {name: metric_with_interval(task, name, counts[name], names) for name in counts},
        "learning_rates": [best.learning_rate for best in chosen],
        "sweep": sweep_of(trained),
        "state_weights": weights.mean(dim=0).tolist(),
    }
    if task.fold_mean:
        result["folds"] = [{n: value(n, pair) for n, pair in part.items()} for part in parts]
    if task.kind == "verification":
        curves = {
            c.learning_rate: [row.get("eer_test", row["eer"]) for row in c.curve]
            for c in trained[0]
        }
        # the published practice is the best that any checkpoint reached on the test trials
        result["best_on_test"] = {"eer": min(map(min, curves.values()))}
        result["last_checkpoint"] = {"eer": curves[chosen[0].learning_rate][-1]}
    return EvaluationResult(result, item_rows(names, counts), tensors)


def _joined(parts: Sequence[Counts]) -> Counts:
    """The items of all folds in one row."""
    return {
        name: (
            np.concatenate([part[name][0] for part in parts]),
            np.concatenate([part[name][1] for part in parts]),
        )
        for name in parts[0]
    }


def _weighted(counts: Counts) -> Counts:
    """Counts of one fold, so that all folds together give the mean of the folds' ratios."""
    return {name: (top / bottom.sum(), bottom / bottom.sum())
            for name, (top, bottom) in counts.items()}  # fmt: skip


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


def sweep_of(trained: Sequence[Sequence[train_heads.Candidate]]) -> list[dict[str, Any]]:
    """Per learning rate, the best dev value of each fold and the step it was reached at."""
    return [
        {
            "learning_rate": candidates[0].learning_rate,
            "dev": [candidate.best for candidate in candidates],
            "steps": [candidate.best_step for candidate in candidates],
            "skipped_updates": sum(candidate.skipped for candidate in candidates),
        }
        for candidates in zip(*trained, strict=True)
    ]
