"""Query by example: no training; the state with the best dev value is tested.

Each state's frames are normalised per dimension, every query is aligned with every document, and
scores are z-normed per query. Targets of a query are the documents in which its words are said.
Two passes over the audio serve all states: one for means and deviations, one for alignment.

Legend: L states, Q queries, D documents, T frames, W width.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skill.config.tasks import Task
from skill.superb.dtw import search_scores, z_scores
from skill.superb.examples import Example, Search, by_length
from skill.superb.feature_cache import FeatureCache
from skill.superb.metrics import Unscored, maximum_term_weighted_value
from skill.superb.result import EvaluationResult, measurement, result_header
from skill.superb.upstream import Upstream
from skill.utils import bootstrap
from skill.utils.progress import track

_DOCUMENT_SECONDS = 60.0  # of all documents that wait together, so that queries are packed seldom


def matches(queries: Sequence[Example], documents: Sequence[Example]) -> NDArray[np.bool_]:
    """[Q, D]: whether a query's target is among the targets of a document."""
    return np.array(
        [[query.target in document.target for document in documents] for query in queries]
    )


def _moments(features: FeatureCache, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (unbiased) of all frames, each [L, W] in double precision."""
    frames, total, squares = 0, torch.zeros(1), torch.zeros(1)
    for group in by_length(examples, features.batch_seconds):
        states, lengths = features.batch(group)
        states = states.double().flatten(1, 2)  # zero behind an utterance's frames
        frames += int(lengths.sum())
        total = states.sum(dim=1) + total.to(states)
        squares = states.square().sum(dim=1) + squares.to(states)
    mean = total / frames
    variance = (squares - frames * mean.square()) / max(frames - 1, 1)
    return mean, variance.clamp(min=0).sqrt().clamp(min=1e-9)


def scores(
    features: FeatureCache,
    states: Sequence[int],
    queries: Sequence[Example],
    documents: Sequence[Example],
) -> NDArray[np.float64]:
    """[len(states), Q, D] z-normed scores; queries and documents are normalised together."""
    mean, deviation = _moments(features, [*queries, *documents])

    def normalized(examples: Sequence[Example]) -> list[list[Tensor]]:
        """Of each state, the frames [T, W] of each example."""
        stacked, lengths = features.batch(examples)
        return [
            [((frames[:n] - mean[state]) / deviation[state]).float()
             for frames, n in zip(stacked[state], lengths.tolist(), strict=True)]
            for state in states
        ]  # fmt: skip

    query_frames: list[list[Tensor]] = [[] for _ in states]
    for query in queries:
        for collected, frames in zip(query_frames, normalized([query]), strict=True):
            collected += frames
    column = {document.id: number for number, document in enumerate(documents)}
    raw = torch.zeros(len(states), len(queries), len(documents))
    searched = 0
    with track(len(documents), f"{len(queries)} queries in documents") as progress:
        for group in by_length(documents, _DOCUMENT_SECONDS):
            columns = [column[document.id] for document in group]
            for number, document_frames in enumerate(normalized(group)):
                raw[number][:, columns] = search_scores(query_frames[number], document_frames)
            searched += len(group)
            progress.update(searched)
    return torch.stack([z_scores(table) for table in raw]).double().numpy()


def evaluate(upstream: Upstream, task: Task, search: Search, seed: int) -> EvaluationResult:
    """The state that is best on the dev queries, tested on the others."""
    documents, queries = search.documents, search.queries
    features = FeatureCache(upstream, False, task.cache_gib * 2**30, task.batch_seconds)
    features.prepare([*queries["dev"], *queries["test"], *documents], task.name)
    truth = {split: matches(part, documents) for split, part in queries.items()}

    def mtwv(split: str, table: NDArray[np.float64], rows: NDArray[np.int64]) -> float:
        rest = search.unscored.get(split)
        return maximum_term_weighted_value(
            truth[split][rows], table[rows], task.prior,
            unscored=None if rest is None else rest.take(rows),
        )  # fmt: skip

    dev_rows = np.arange(len(queries["dev"]))
    dev = [
        mtwv("dev", table, dev_rows)
        for table in scores(features, range(upstream.states), queries["dev"], documents)
    ]
    state = int(np.argmax(dev))
    (table,) = scores(features, [state], queries["test"], documents)
    clusters = [query.cluster for query in queries["test"]]
    resamples = bootstrap.resampled_statistic(
        lambda rows: mtwv("test", table, rows),
        len(table), clusters, resamples=task.bootstrap, seed=seed,
    )  # fmt: skip
    result = {
        **result_header(task, upstream, sizes(search), search.synthetic),
        "table": task.table if search.unscored else None,
        "layer": state,
        "sweep": [{"state": n, "dev": v, "chosen": n == state} for n, v in enumerate(dev)],
        "metrics": {"mtwv": measurement("mtwv", [resamples], int(table.size))},
    }
    rows = [
        {"id": f"{query.id}:{document.id}", "cluster": query.cluster, "mtwv": float(table[q, d]),
         "mtwv_of": float(truth["test"][q, d])}
        for q, query in enumerate(queries["test"]) for d, document in enumerate(documents)
    ]  # fmt: skip
    rows.sort(key=lambda row: str(row["id"]))
    weight = torch.zeros(upstream.states)
    weight[state] = 1
    return EvaluationResult(result, rows, {"layer": weight})


def sizes(search: Search) -> dict[str, Any]:
    """How much is searched, and for how many queries."""
    none = Unscored(0, 0, np.zeros(0, dtype=np.int64))
    return {
        "documents": len(search.documents),
        "document_seconds": sum(e.samples for e in search.documents) / 16000,
        "queries": {split: len(part) for split, part in search.queries.items()},
        "unscored_documents": search.unscored.get("test", none).documents,
        "unscored_queries": {
            split: search.unscored.get(split, none).queries for split in search.queries
        },
    }
