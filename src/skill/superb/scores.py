"""All results in one table, the SUPERB score where it is due, and comparisons in pairs.

One row per (upstream, task, metric). Synthetic tasks are marked and never averaged. The SUPERB
score and rank exist only for results of the official corpora with the protocol's values, with and
without query by example; the sample scale never gets them.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import stdev
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from skill.config.jobs import ScoresJob
from skill.config.tasks import PROTOCOL, UNCONFIRMED
from skill.config.types import parse
from skill.superb.counts import counts_of
from skill.superb.metrics import METRICS
from skill.superb.score import REFERENCE_POINTS, superb_rank, superb_score
from skill.utils.bootstrap import Resampled
from skill.utils.errors import SkillError
from skill.utils.files import read_csv, read_json, write_csv, write_json
from skill.utils.uncertainty import difference, pooled

COLUMNS = [
    *("upstream", "kind", "method", "base", "teachers", "sparsity", "seed"),
    *("parameters", "macs", "real_time_factor"),
    *("task", "title", "metric", "value", "low", "high", "error", "head_seeds", "head_deviation"),
    *("items", "clusters", "unit", "low_is_good", "learning_rates"),
    *("official", "synthetic", "protocol"),
    "unconfirmed",  # why a result with the protocol's values is not official
    "fbank_cmvn",  # of FBANK: whether mean and variance are normalised per utterance
    "table",  # of QUESST 2014: whose queries and documents count
]


class _Measured(BaseModel):
    """A metric in the JSON of a task; more may stand beside it."""

    model_config = ConfigDict(strict=True)
    value: float
    low: float
    high: float
    error: float
    items: int
    clusters: int
    unit: str
    low_is_good: bool
    heads: list[float]


_MEASURED = [name for name in _Measured.model_fields if name != "heads"]


class _Model(BaseModel):
    """The upstream in the JSON of a task."""

    model_config = ConfigDict(strict=True)
    parameters: int


class _Result(BaseModel):
    """What the table takes from the JSON of a task."""

    model_config = ConfigDict(strict=True)
    upstream: str
    task: str
    title: str
    official: bool
    synthetic: bool
    protocol: str | None
    model: _Model
    metrics: dict[str, Any]


class _Size(BaseModel):
    """What the table takes from the JSON of an upstream's size."""

    model_config = ConfigDict(strict=True)
    upstream: str
    parameters: int
    macs: float
    real_time_factor: float


_PAIRED = METRICS.keys() - {"mtwv"}  # queries of three voices at the sample scale: no test
_SCORE_NAMES = {("sf", "slot_f1"): "sf_f1", ("sf", "slot_cer"): "sf_cer"}


def rows_of(
    results: Iterable[Mapping[str, Any]], sizes: Mapping[str, Mapping[str, Any]], job: ScoresJob
) -> list[dict[str, Any]]:
    """The table's rows, sorted by upstream (in the job's order), task and metric.

    Raises:
        SkillError: a result is of an upstream that the parameters do not have.
    """
    order = {name: index for index, name in enumerate(job.upstreams)}
    tasks = {name: index for index, name in enumerate(PROTOCOL)}
    rows = []
    for result in results:
        name, task = result["upstream"], result["task"]
        if name not in order:
            raise SkillError(f"results of {name}, which the parameters do not have")
        upstream = job.upstreams[name]
        size = sizes.get(name, {})
        for metric, measured in result["metrics"].items():
            if metric not in METRICS:
                continue
            rows.append(
                {
                    "upstream": name,
                    "kind": upstream.kind,
                    "method": upstream.method,
                    "base": upstream.base or name,
                    "teachers": "+".join(upstream.teachers),
                    "sparsity": "" if upstream.sparsity is None else upstream.sparsity,
                    "seed": "" if upstream.seed is None else upstream.seed,
                    "parameters": size.get("parameters", result["model"]["parameters"]),
                    "macs": size.get("macs", ""),
                    "real_time_factor": size.get("real_time_factor", ""),
                    "task": task,
                    "title": result["title"],
                    "metric": metric,
                    **{key: measured[key] for key in _MEASURED},
                    "head_seeds": len(measured["heads"]),
                    "head_deviation": stdev(measured["heads"]) if measured["heads"][1:] else "",
                    "learning_rates": " ".join(map(str, result.get("learning_rates", ()))),
                    "official": result["official"],
                    "synthetic": result["synthetic"],
                    "protocol": result["protocol"],
                    "unconfirmed": result.get("unconfirmed"),
                    "fbank_cmvn": result.get("fbank_cmvn"),
                    "table": result.get("table"),
                }
            )
    return sorted(rows, key=lambda row: (order[row["upstream"]], tasks[row["task"]]))


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{upstream: {task: {metric: value}}}, with SUPERB's scores and rank where they exist.

    `superb_score_without_qbe` is of the nine tasks whose metrics were compared with the official
    ones, `superb_score` and `superb_rank` of all ten; `superb_score_note` says what they take in.
    """
    values: dict[str, Any] = {}
    boards: dict[str, dict[str, float]] = {}
    for row in rows:
        task, metric = row["task"], row["metric"]
        values.setdefault(row["upstream"], {}).setdefault(task, {})[metric] = row["value"]
        name = _SCORE_NAMES.get((task, metric), task)
        is_main = metric == PROTOCOL[task].metrics[0] or (task, metric) in _SCORE_NAMES
        if (row["official"] or row["unconfirmed"]) and not row["synthetic"] and is_main:
            boards.setdefault(row["upstream"], {})[name] = row["value"]
    all_names = {name for metrics in REFERENCE_POINTS.values() for name in metrics}
    confirmed = all_names - UNCONFIRMED.keys()
    for name, board in boards.items():
        if confirmed <= board.keys():
            nine = {key: board[key] for key in confirmed}
            values[name]["superb_score_without_qbe"] = superb_score(nine, without=UNCONFIRMED)
    complete = {name: board for name, board in boards.items() if set(board) == all_names}
    for name, rank in superb_rank(complete).items():
        values[name]["superb_score"] = superb_score(complete[name])
        values[name]["superb_rank"] = rank
        values[name]["superb_score_note"] = "; ".join(
            f"{task}: {reason}" for task, reason in UNCONFIRMED.items()
        )
    return values


def run(results: Sequence[Path], job: ScoresJob, output: Path, table: Path) -> None:
    """Gather the JSON files of tasks and sizes into `output` (JSON) and `table` (CSV).

    Raises:
        SkillError: a file is damaged, or of an upstream that the parameters do not have.
    """
    loaded = [_read_result(path) for path in results]
    sizes = {entry["upstream"]: entry for entry in loaded if "task" not in entry}
    rows = rows_of((entry for entry in loaded if "task" in entry), sizes, job)
    write_csv(table, rows, COLUMNS)
    write_json(output, summary(rows))


def _read_result(path: Path) -> Any:
    """The JSON of a task or of an upstream's size, with all keys that the table takes from it."""
    result = read_json(path)
    if not isinstance(result, dict):
        raise SkillError(f"{path}: no result of a task: a mapping was expected")
    if "task" not in result:
        parse(_Size, result, f"{path}: size")
        return result
    parse(_Result, result, f"{path}: result")
    if result["task"] not in PROTOCOL:
        raise SkillError(f"{path}: task {result['task']!r} is unknown")
    for name in METRICS.keys() & result["metrics"].keys():
        parse(_Measured, result["metrics"][name], f"{path}: metrics.{name}")
    return result


def comparisons(
    items: Iterable[Path], compared: Mapping[str, Mapping[int, str]], resamples: int
) -> list[dict[str, str | float]]:
    """Every pair of `compared` on every task that both have, by `skill.utils.uncertainty`.

    `items`: the tables UPSTREAM/TASK.csv; beside each lies the task's result (JSON).
    `compared`: {name: {seed: upstream}}. Two are compared on the seeds that both have; what has no
    seed (teachers, log-mel features: 0) or a single one with all of the other's. Differences are in
    percent, first minus second; `detectable` is what the test would find with 80 % power.

    Raises:
        SkillError: two tables of a task are not of the same test items.
    """
    rows: list[dict[str, str | float]] = []
    paths = {(path.parent.name, path.stem): path for path in items}
    for task in PROTOCOL.values():
        tables = {
            name: {
                seed: paths[upstream, task.name]
                for seed, upstream in members.items()
                if (upstream, task.name) in paths
            }
            for name, members in compared.items()
        }
        of_task = [path for members in tables.values() for path in members.values()]
        synthetic = bool(of_task) and bool(read_json(of_task[0].with_suffix(".json"))["synthetic"])
        for metric in filter(_PAIRED.__contains__, task.metrics):
            heads = _resampled_tables(of_task, metric, resamples)
            pool = pooled([[head.value for head in of_table] for of_table in heads.values()])
            for first, second in combinations(compared, 2):
                pair = tuple(
                    {seed: heads[path] for seed, path in tables[name].items()}
                    for name in (first, second)
                )
                shared = [seed for seed in pair[0] if seed in pair[1]]
                if not shared and min(map(len, pair)) != 1:
                    continue
                gap = difference(pair[0], pair[1], pool)
                low, high = gap.interval()
                heads_of = [next(iter(systems.values())) for systems in pair]
                rows.append(
                    {
                        "task": task.name, "metric": metric, "first": first, "second": second,
                        "difference": 100 * gap.value, "low": 100 * low, "high": 100 * high,
                        "p_value": gap.p_value(), "detectable": 100 * gap.detectable(),
                        "seeds": len(shared) or max(map(len, pair)),
                        "head_seeds": min(map(len, heads_of)),
                        "clusters": heads_of[0][0].clusters, "synthetic": synthetic,
                    }
                )  # fmt: skip
    return rows


def _resampled_tables(
    tables: Sequence[Path], metric: str, resamples: int
) -> dict[Path, list[Resampled]]:
    """A metric of each head of each table of items, all resampled by the same draws."""
    heads: dict[Path, list[Resampled]] = {}
    items: list[tuple[str, str]] = []
    for path in tables:
        by_seed: dict[str, list[dict[str, str]]] = {}
        for row in read_csv(path, ["id", "cluster", "head_seed", metric, f"{metric}_of"]):
            by_seed.setdefault(row["head_seed"], []).append(row)
        for rows in by_seed.values():
            of_head = [(row["id"], row["cluster"]) for row in rows]
            if items and of_head != items:
                raise SkillError(f"{tables[0]} and {path} are not of the same test items")
            items = of_head
            try:
                first, second = (
                    np.array([float(row[key]) for row in rows]) for key in (metric, f"{metric}_of")
                )
            except ValueError as error:
                raise SkillError(f"{path}: a count of {metric} is no number: {error}") from error
            clusters = [cluster for _, cluster in items]
            counts = counts_of(metric, first, second)
            heads.setdefault(path, []).append(counts.resampled(clusters, resamples))
    return heads
