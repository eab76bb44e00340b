"""The tables behind the figures. Each function: files in, rows out; nothing is drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import pandas as pd

from skill.config.jobs import PaperJob
from skill.config.tasks import PROTOCOL
from skill.paper.results_table import SCORED, Row, official, results
from skill.superb.metrics import METRICS
from skill.superb.score import superb_score
from skill.utils.files import read_csv, read_header, read_json

_CURVE = (
    *("distillation", "validation_loss", "sparsity", "target_sparsity", "lambda1", "lambda2"),
    *("gradient_norm", "audio_per_second"),
)
_SCORE = ["task", "metric", "value", "low", "high", "low_is_good", "synthetic"]
CURVES = ["student", "base", "stage", "step", "update", *_CURVE]
LAYERS = ["student", "unit", "layer", "left", "of", "parameters"]
REGRESSION = ["student", "series", "sparsity", "teacher", "layer", "error", "low", "high", "target"]
SIZE = ["upstream", "kind", "method", "parameters", "macs", "real_time_factor", *_SCORE]
SPARSITY = ["series", "kind", "sparsity", *_SCORE]
PROBES = ["upstream", "kind", "task", "metric", "state", "of", "value"]
_TESTED = ["low", "high", "p_value", "seeds", "head_seeds", "clusters", "synthetic"]
COMPARISONS = ["task", "metric", "first", "second", "difference", *_TESTED, "detectable"]
GAINS = ["reference", "student", "task", "metric", "gain", "unit", *_TESTED]
PUBLISHED = ["model", "origin", "million_parameters", "giga_macs", "hours", "score", "source"]


def curves(files: Sequence[Path], job: PaperJob) -> list[Row]:
    """The curves of `results/stage1/NAME.csv` and `results/stage2/NAME.csv`, one below the other.

    `step` counts within a stage, `update` goes on from stage 1 to stage 2.
    """
    rows: list[Row] = []
    updates: dict[str, float] = {}
    for file in files:
        student, start = file.stem, updates.get(file.stem, 0.0)
        for row in read_csv(file):
            updates[student] = start + float(row["step"])
            head = {"student": student, "base": _base(job, student), "stage": file.parent.name}
            counts = {"step": row["step"], "update": updates[student]}
            rows.append(head | counts | {key: row.get(key, "") for key in _CURVE})
    return rows


def layers(files: Sequence[Path], job: PaperJob) -> list[Row]:
    """What pruning left: per student, unit and layer the number left, of how many, parameters.

    `files` are pairs of a stage-1 summary and its student; students that differ in their seed are
    averaged. Layer numbers count from 1.
    """
    rows: list[Row] = []
    for summary, student in zip(files[::2], files[1::2], strict=True):
        config = read_header(student)["config"]
        teacher = read_json(summary)["teacher"]
        width, per_head = config["width"], config["width"] // config["total_heads"]
        channels = [1, *config["conv_channels"]]
        left = {
            "conv": config["conv_channels"],
            "head": [len(heads) for heads in config["heads"]],
            "ffn": config["ffn"],
        }
        full = {"conv": teacher["conv_channels"], "head": teacher["heads"], "ffn": teacher["ffn"]}
        for unit, counts in left.items():
            for layer, count in enumerate(counts, start=1):
                parameters = {
                    "conv": channels[layer - 1] * count * config["conv_kernels"][layer - 1]
                    if unit == "conv"
                    else 0,
                    "head": 4 * count * per_head * width + 3 * count * per_head + width,
                    "ffn": 2 * count * width + count + width,
                }[unit]
                rows.append(
                    {
                        "student": _base(job, student.stem), "unit": unit, "layer": layer,
                        "left": count, "of": full[unit][layer - 1], "parameters": parameters,
                    }
                )  # fmt: skip
    return _averaged(rows, ["student", "unit", "layer"], ["left", "parameters"])


def regression(files: Sequence[Path], job: PaperJob) -> list[Row]:
    """How well each teacher layer was learned: the tables of the verb `regression`, seeds averaged.

    `series` is the student's name without what differs between the panels of the figure.
    """
    rows: list[Row] = []
    for row in (row for file in files for row in read_csv(file)):
        upstream = job.upstreams[row["student"]]
        base = upstream.base or row["student"]
        rows.append(
            {
                **{key: row[key] for key in ("teacher", "target")},
                **{key: float(row[key]) for key in ("error", "low", "high")},
                "layer": int(row["layer"]),
                "student": base,
                "series": job.sweeps.get(base, base),
                "sparsity": "" if upstream.sparsity is None else upstream.sparsity,
            }
        )
    return _averaged(rows, ["student", "teacher", "layer"], ["error", "low", "high"])


def size(files: Sequence[Path], job: PaperJob) -> list[Row]:
    """Every upstream's parameters, MACs and real-time factor beside its tasks' first metrics.

    Seeds are averaged.
    """
    scores = [r for r in read_csv(files[0], ["upstream", "task", "metric"]) if _is_first(r)]
    keys = ["macs", "real_time_factor"]
    costs = pd.DataFrame(scores, columns=["base", *keys])
    costs[keys] = costs[keys].apply(pd.to_numeric)
    means = costs.groupby("base").mean()
    columns = ["upstream", "kind", "method", "parameters", *_SCORE]
    return [
        {key: row[key] for key in columns} | {key: means.loc[row["upstream"], key] for key in keys}
        for row in results(scores)
    ]


def sparsity(files: Sequence[Path], job: PaperJob) -> list[Row]:
    """Score against sparsity: the students of sweeps, and at 0 the teachers that they start as."""
    rows: list[Row] = []
    averaged = results([row for row in read_csv(files[0]) if _is_first(row)])
    swept = [row for row in averaged if row["upstream"] in job.sweeps]
    teachers = {row["teachers"].partition("+")[0] for row in swept}
    for row in averaged:
        score = {key: row[key] for key in _SCORE}
        if row["upstream"] in job.sweeps:
            series = {"series": job.sweeps[row["upstream"]], "kind": "student"}
            rows.append(series | {"sparsity": float(row["sparsity"])} | score)
        elif row["upstream"] in teachers:
            series = {"series": row["upstream"], "kind": "teacher"}
            rows.append(series | {"sparsity": 0.0} | score)
    return sorted(rows, key=lambda row: (row["kind"], row["series"], row["sparsity"]))


def probes(files: Sequence[Path], job: PaperJob) -> list[Row]:
    """What each state of each upstream knows: results of `phones` and `abx`, seeds averaged.

    `value` is the metric on the test set, of ABX across speakers; `of` is the last state's number.
    """
    rows: list[Row] = []
    for result in map(read_json, files):
        upstream = job.upstreams[result["upstream"]]
        head = {"upstream": upstream.base or result["upstream"], "kind": upstream.kind}
        head |= {"task": result["task"], "metric": PROTOCOL[result["task"]].selection}
        states = result["layers"]
        rows += [
            head | {"state": row["state"], "of": len(states) - 1, "value": row["test"]}
            for row in states
        ]
    return _averaged(rows, ["upstream", "task", "state"], ["value"])


def gains(file: Path, references: Mapping[str, str]) -> list[Row]:
    """What each student gains over its reference, in points of the metric.

    The file is `comparisons.csv`: differences over the same test items and seeds with the interval
    of `skill.utils.uncertainty`. A positive gain is better, whatever the metric. Rows keep the
    order of `references`.
    """
    tests = pd.DataFrame([row for row in read_csv(file) if _is_first(row)])
    if tests.empty:
        return []
    numbers = ["difference", "low", "high"]
    tests[numbers] = tests[numbers].apply(pd.to_numeric)
    turned = tests.rename(columns={"first": "second", "second": "first"})
    turned[numbers] = -tests[["difference", "high", "low"]].to_numpy()
    pairs = pd.DataFrame(list(references.items()), columns=["first", "second"])
    tests = pairs.merge(pd.concat([tests, turned]), on=["first", "second"])
    worse = tests["metric"].map({name: metric.low_is_good for name, metric in METRICS.items()})
    tests.loc[worse, numbers] = -tests.loc[worse, ["difference", "high", "low"]].to_numpy()
    tests["unit"] = tests["metric"].map({name: metric.unit for name, metric in METRICS.items()})
    tests["difference"] += 0.0  # no "-0"
    names = {"first": "student", "second": "reference", "difference": "gain"}
    return _rows(tests.rename(columns=names)[GAINS])


def published(files: Sequence[Path], job: PaperJob) -> list[Row]:
    """Size and SUPERB score of the published models, and of this run's students with a score.

    MACs are of the leaderboard's 32 utterances (`skill.superb.profile.LENGTHS`).
    """
    scores = read_csv(files[0])
    macs = {row["base"]: float(row["macs"]) for row in scores if row["macs"]}
    rows: list[Row] = [
        {key: row[key] for key in ("model", "million_parameters", "giga_macs", "hours", "source")}
        | {"origin": "published", "score": superb_score({n: float(row[n]) for n in SCORED})}
        for row in read_csv(files[1])
    ]
    students = {n: b for n, b in official(scores).items() if b["row"]["kind"] == "student"}
    for name, board in students.items():
        rows.append(
            {
                "model": name, "origin": "this run", "hours": "",
                "giga_macs": f"{macs[name] / 1e9:.1f}" if name in macs else "",
                "million_parameters": board["row"]["parameters"] / 1e6,
                "score": superb_score({key: board[key] for key in SCORED}), "source": "this run",
            }
        )  # fmt: skip
    return sorted(rows, key=lambda row: -row["score"])


def _base(job: PaperJob, name: str) -> str:
    upstream = job.upstreams.get(name)
    return upstream.base or name if upstream else name


def _is_first(row: Row) -> bool:
    return bool(row["metric"] == PROTOCOL[row["task"]].metrics[0])


def _averaged(rows: Sequence[Row], keys: list[str], values: list[str]) -> list[Row]:
    """One row for those with the same keys: the mean of `values`, the rest from the first."""
    if not rows:
        return []
    frame = pd.DataFrame(list(rows))
    how: dict[str, Any] = dict.fromkeys(frame.columns.difference(keys), "first")
    how |= dict.fromkeys(values, lambda column: mean(column.tolist()))  # whole numbers stay whole
    averaged = frame.groupby(keys, sort=False, as_index=False).agg(how)
    return _rows(averaged[list(frame.columns)])


def _rows(frame: pd.DataFrame) -> list[Row]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]
