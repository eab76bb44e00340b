"""Query by example: no training; the state with the best dev value is tested.

Each state's frames are normalised per dimension, every query is aligned with every document, and
scores are z-normed per query. Targets of a query are the documents in which its words are said.
Two passes over the audio serve all states: one for means and deviations, one for alignment.

Legend: L states, K queries, N documents, T frames, D width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skill.config.tasks import Task
from skill.superb.dtw import search_scores, z_scores
from skill.superb.examples import Example, Fold, by_length
from skill.superb.feature_cache import FeatureCache
from skill.superb.metrics import METRICS, maximum_term_weighted_value
from skill.superb.result import EvaluationResult, result_header
from skill.superb.upstream import Upstream
from skill.utils import bootstrap
from skill.utils.progress import track

_DOCUMENT_SECONDS = 60.0  # of all documents that wait together, so that queries are packed seldom


def matches(queries: list[Example], documents: list[Example]) -> NDArray[np.bool_]:
    """[Q, N]: whether a query's target is among the targets of a document."""
    return np.array(
        [[query.target in document.target for document in documents] for query in queries]
    )


def _moments(features: FeatureCache, examples: Sequence[Example]) -> tuple[int, Tensor, Tensor]:
    """Number of frames, their sum and the sum of their squares, [L, D] in double precision."""
    frames, total, squares = 0, torch.zeros(1), torch.zeros(1)
    for group in by_length(examples, features.batch_seconds):
        states, lengths = features.batch(group)
        states = states.double().flatten(1, 2)  # zero behind an utterance's frames
        frames += int(lengths.sum())
        total = states.sum(dim=1) + total.to(states)
        squares = states.square().sum(dim=1) + squares.to(states)
    return frames, total, squares


def scores(
    features: FeatureCache,
    states: Sequence[int],
    queries: Sequence[Example],
    documents: Sequence[Example],
) -> NDArray[np.float64]:
    """[len(states), K, N] z-normed scores; queries and documents are normalised together."""
    asking, heard = _moments(features, queries), _moments(features, documents)
    frames, total, squares = asking[0] + heard[0], asking[1] + heard[1], asking[2] + heard[2]
    mean = total / frames
    deviation = ((squares - frames * mean.square()) / max(frames - 1, 1)).clamp(min=0).sqrt()
    deviation = deviation.clamp(min=1e-9)

    def normal(examples: Sequence[Example]) -> list[list[Tensor]]:
        """Of each state, the frames [T, D] of each example."""
        whole, lengths = features.batch(examples)
        return [
            [((part[:n] - mean[state]) / deviation[state]).float()
             for part, n in zip(whole[state], lengths.tolist(), strict=True)]
            for state in states
        ]  # fmt: skip

    asked: list[list[Tensor]] = [[] for _ in states]
    for query in queries:
        for own, found in zip(asked, normal([query]), strict=True):
            own += found
    place = {document.id: number for number, document in enumerate(documents)}
    raw = torch.zeros(len(states), len(queries), len(documents))
    heard_so_far = 0
    with track(len(documents), f"{len(queries)} queries in documents") as progress:
        for group in by_length(documents, _DOCUMENT_SECONDS):
            columns = [place[document.id] for document in group]
            for number, frames_of in enumerate(normal(group)):
                raw[number][:, columns] = search_scores(asked[number], frames_of)
            heard_so_far += len(group)
            progress.update(heard_so_far)
    return torch.stack([z_scores(part) for part in raw]).double().numpy()


def evaluate(upstream: Upstream, task: Task, fold: Fold, seed: int) -> EvaluationResult:
    """The outcome of `task`: `fold.dev` and `fold.test` are queries, `fold.train` documents."""
    features = FeatureCache(upstream, False, task.cache_gib * 2**30, task.batch_seconds)
    features.prepare([*fold.dev, *fold.test, *fold.train], task.name)
    targets = {"dev": matches(fold.dev, fold.train), "test": matches(fold.test, fold.train)}
    every = range(upstream.states)
    dev = [
        maximum_term_weighted_value(targets["dev"], found, task.prior)
        for found in scores(features, every, fold.dev, fold.train)
    ]
    layer = int(np.argmax(dev))
    truth = targets["test"]
    found = scores(features, [layer], fold.test, fold.train)[0]
    clusters = [query.cluster for query in fold.test]
    drawn = bootstrap.resampled_statistic(
        lambda drawn: maximum_term_weighted_value(truth[drawn], found[drawn], task.prior),
        len(truth), clusters, resamples=task.bootstrap, seed=seed,
    )  # fmt: skip
    low, high = bootstrap.percentiles(drawn)
    result = {
        **result_header(task, upstream, [fold]),
        "layer": layer,
        "sweep": [{"state": n, "dev": v, "chosen": n == layer} for n, v in enumerate(dev)],
        "metrics": {
            "mtwv": {
                "value": drawn.value,
                "low": low,
                "high": high,
                "items": int(truth.size),
                "clusters": len(set(clusters)),
                "low_is_good": False,
                "unit": METRICS["mtwv"].unit,
            }
        },
    }
    rows = [
        {"id": f"{query.id}:{document.id}", "cluster": query.cluster, "mtwv": float(found[q, d]),
         "mtwv_of": float(truth[q, d])}
        for q, query in enumerate(fold.test) for d, document in enumerate(fold.train)
    ]  # fmt: skip
    rows.sort(key=lambda row: str(row["id"]))
    weight = torch.zeros(upstream.states)
    weight[layer] = 1
    return EvaluationResult(result, rows, {"layer": weight})
