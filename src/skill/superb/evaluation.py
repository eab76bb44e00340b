"""One upstream on one task: heads trained, the best chosen on dev, the test set counted once.

The result is one JSON: metrics in percent with their bootstrap intervals, the learning rates' dev
values, the learned weight of every state, and the counts of every test item, from which two
upstreams can be compared in pairs. The trained heads lie beside it for `predict`.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skill import provenance
from skill.corpora.manifest import read_manifest
from skill.files import write_json, write_tensors
from skill.superb import bootstrap, fitting
from skill.superb.data import folds_of
from skill.superb.examples import Example, Fold
from skill.superb.features import Encoder, Features, Upstream, load_upstream
from skill.superb.problems import Counts, Labels, Problem, Transcription
from skill.superb.tasks import METRICS, Task, configured

_PROBLEMS: dict[str, Any] = {"ctc": Transcription, "labels": Labels}


def run(
    upstream: str,
    task: str,
    settings: Mapping[str, Any],
    manifests: Sequence[Path],
    output: Path,
    seed: int,
    scratch: Path | None = None,
) -> None:
    """Evaluate `upstream` (a file of an encoder, or `fbank`) on `task`; write JSON to `output`.

    `settings` replace values of the protocol's task. With `scratch`, training goes on from the
    checkpoint of an interrupted run. Beside `output`, the heads are kept as safetensors.

    Raises:
        SkillError: a setting, a manifest, an audio file or the upstream is no good.
    """
    began = time.monotonic()
    configuration = configured(task, settings)
    model = load_upstream(upstream, configuration.precision)
    utterances = [u for path in manifests for u in read_manifest(path)]
    folds = folds_of(configuration, utterances)
    inputs = [*manifests, *([] if upstream == "fbank" else [Path(upstream)])]
    stamp = provenance.stamp(inputs, {"task": configuration.model_dump(), "seed": seed})
    result, tensors = evaluate(model, configuration, folds, seed, scratch, str(stamp), output.stem)
    result |= {"upstream": upstream, "provenance": stamp}
    header = {
        "task": configuration.model_dump(mode="json"),
        "labels": folds[0].labels,
        "upstream": upstream,
        "provenance": stamp,
    }
    write_tensors(output.with_suffix(".safetensors"), tensors, header)
    write_json(output, result)
    for name, metric in result["metrics"].items():
        print(f"{upstream} {task}: {name} {metric['value']:.2f} "
              f"({metric['low']:.2f} to {metric['high']:.2f}), {metric['items']} items, "
              f"{time.monotonic() - began:.0f} s", flush=True)  # fmt: skip


def evaluate(
    upstream: Upstream,
    task: Task,
    folds: Sequence[Fold],
    seed: int,
    scratch: Path | None = None,
    identity: str = "",
    label: str = "",
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The result of `task` on `folds`, and the tensors of the heads chosen (prefixed `foldK.`)."""
    problem_type = _PROBLEMS[task.kind]
    trained: list[tuple[Problem, Features, list[fitting.Candidate]]] = []
    shared = Features(upstream, problem_type.pooled, task.cache_gib * 2**30, task.batch_seconds)
    for number, fold in enumerate(folds):
        problem = problem_type(task, fold)
        checkpoint = None if scratch is None else scratch / f"fold{number}.pt"
        candidates = fitting.fit(
            problem, shared, task, fold.train, fold.dev, seed, checkpoint, identity,
            f"{label} fold {number + 1} of {len(folds)}" if len(folds) > 1 else label,
        )  # fmt: skip
        trained.append((problem, shared, candidates))
    sweep = _sweep(task, [candidates for _, _, candidates in trained])
    chosen = next(i for i, row in enumerate(sweep) if row["chosen"])
    examples: list[Example] = []
    parts: list[Counts] = []
    tensors: dict[str, torch.Tensor] = {}
    for number, (fold, (problem, features, candidates)) in enumerate(
        zip(folds, trained, strict=True)
    ):
        head = candidates[chosen].head
        head.load_state_dict(candidates[chosen].best_head)
        answers = fitting.answer(problem, [head], features, fold.test)[0]
        parts.append(problem.counts(fold.test, answers))
        examples += fold.test
        tensors |= {f"fold{number}.{name}": t for name, t in head.state_dict().items()}
    counts: Counts = {
        name: (
            np.concatenate([part[name][0] for part in parts]),
            np.concatenate([part[name][1] for part in parts]),
        )
        for name in parts[0]
    }
    weights = [tensors[f"fold{n}.featurizer.weights"].softmax(0) for n in range(len(folds))]
    return {
        "task": task.name,
        "title": task.title,
        "metrics": {name: _measured(task, counts, name, examples) for name in task.metrics},
        "protocol": task.protocol,
        "synthetic": False,
        "learning_rate": sweep[chosen]["learning_rate"],
        "sweep": sweep,
        "state_weights": torch.stack(weights).mean(0).tolist(),
        "examples": {
            "train": [len(fold.train) for fold in folds],
            "dev": [len(fold.dev) for fold in folds],
            "test": [len(fold.test) for fold in folds],
            "classes": [len(names) for names in folds[0].labels],
            "train_seconds": [sum(e.samples for e in fold.train) / 16000 for fold in folds],
            "left_out": folds[0].left_out,
        },
        "model": {
            "states": upstream.states,
            "width": upstream.width,
            "hop": upstream.hop,
            "parameters": (
                upstream.encoder.num_parameters() if isinstance(upstream, Encoder) else 0
            ),
        },
        "items": _compact(examples, counts),
    }, tensors


def _sweep(task: Task, trained: Sequence[Sequence[fitting.Candidate]]) -> list[dict[str, Any]]:
    """Per learning rate, the best dev values of the folds; the one with the best mean is chosen."""
    metric = task.metrics[0]
    rows: list[dict[str, Any]] = []
    for candidates in zip(*trained, strict=True):
        values = [candidate.best for candidate in candidates]
        rows.append(
            {
                "learning_rate": candidates[0].learning_rate,
                "dev": float(np.mean(values)),
                "dev_folds": values,
                "steps": [candidate.best_step for candidate in candidates],
                "skipped_updates": sum(candidate.skipped for candidate in candidates),
                "curve": [[step, value] for step, value in candidates[0].curve],
                "chosen": False,
            }
        )
    best = 0
    for index, row in enumerate(rows):
        if fitting.better(row["dev"], rows[best]["dev"], metric):
            best = index
    rows[best]["chosen"] = True
    return rows


def _measured(task: Task, counts: Counts, name: str, examples: Sequence[Example]) -> dict[str, Any]:
    """A metric's value in percent, its interval by cluster and by item, and how many of each."""
    numerators, denominators = counts[name]
    clusters = [example.cluster for example in examples]
    low, high = bootstrap.ratio_interval(
        numerators, denominators, clusters, resamples=task.bootstrap
    )
    return {
        "value": fitting.metric_value(counts, name),
        "low": 100 * low,
        "high": 100 * high,
        "items": len(examples),
        "clusters": len(set(clusters)),
        "low_is_good": METRICS[name].low_is_good,
        "unit": METRICS[name].unit,
    }


def _compact(examples: Sequence[Example], counts: Counts) -> dict[str, Any]:
    """Per-item counts as blank-separated strings, so that the JSON stays readable."""
    order = sorted(range(len(examples)), key=lambda i: examples[i].id)
    table: dict[str, Any] = {
        "id": " ".join(examples[i].id.replace(" ", "_") for i in order),
        "cluster": " ".join(str(examples[i].cluster).replace(" ", "_") for i in order),
    }
    for name, (numerators, denominators) in counts.items():
        table[name] = " ".join(f"{numerators[i]:g}/{denominators[i]:g}" for i in order)
    return table
