"""Query by example: no training; the state with the best dev value is tested.

Each state's frames are normalised per dimension, every query is aligned with every document, and
scores are z-normed per query. Targets of a query are the documents in which its words are said.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skill.superb import bootstrap
from skill.superb.alignment import normalised_states, search_scores, z_scores
from skill.superb.examples import Example, Fold
from skill.superb.features import Features, Upstream
from skill.superb.metrics import maximum_term_weighted_value
from skill.superb.tasks import METRICS, Task


def matches(queries: list[Example], documents: list[Example]) -> NDArray[np.bool_]:
    """[Q, N]: whether a query's target is among the targets of a document."""
    return np.array(
        [[query.target in document.target for document in documents] for query in queries]
    )


def scores_of_state(
    features: Features, state: int, queries: list[Example], documents: list[Example]
) -> NDArray[np.float64]:
    """[Q, N] z-normed scores of one state."""
    groups: list[list[Tensor]] = []
    for part in (queries, documents):
        groups.append([features.batch([example])[0][state, 0] for example in part])
    normal = normalised_states(groups)
    return z_scores(search_scores(normal[0], normal[1])).double().numpy()


def evaluate(upstream: Upstream, task: Task, fold: Fold, seed: int) -> Any:
    """The outcome of `task`: `fold.dev` and `fold.test` are queries, `fold.train` documents."""
    from skill.superb.evaluation import Outcome, described

    features = Features(upstream, False, task.cache_gib * 2**30, task.batch_seconds)
    features.prepare([*fold.dev, *fold.test, *fold.train])
    targets = {"dev": matches(fold.dev, fold.train), "test": matches(fold.test, fold.train)}
    dev = []
    for state in range(upstream.states):
        scores = scores_of_state(features, state, fold.dev, fold.train)
        dev.append(maximum_term_weighted_value(targets["dev"], scores, task.prior))
    layer = int(np.argmax(dev))
    truth = targets["test"]
    scores = scores_of_state(features, layer, fold.test, fold.train)
    low, high = bootstrap.statistic_interval(
        lambda drawn: maximum_term_weighted_value(truth[drawn], scores[drawn], task.prior),
        len(truth), resamples=task.bootstrap, seed=seed,
    )  # fmt: skip
    result = {
        **described(task, upstream, [fold]),
        "layer": layer,
        "sweep": [{"state": n, "dev": v, "chosen": n == layer} for n, v in enumerate(dev)],
        "metrics": {
            "mtwv": {
                "value": maximum_term_weighted_value(truth, scores, task.prior),
                "low": low,
                "high": high,
                "items": int(truth.size),
                "clusters": len(truth),
                "low_is_good": False,
                "unit": METRICS["mtwv"].unit,
            }
        },
    }
    rows = [
        {"id": f"{query.id}:{document.id}", "cluster": query.id, "mtwv": float(scores[q, d]),
         "mtwv_of": float(truth[q, d])}
        for q, query in enumerate(fold.test) for d, document in enumerate(fold.train)
    ]  # fmt: skip
    rows.sort(key=lambda row: str(row["id"]))
    weight = torch.zeros(upstream.states)
    weight[layer] = 1
    return Outcome(result, rows, {"layer": weight})
