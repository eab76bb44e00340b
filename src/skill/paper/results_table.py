"""Tables of results: all upstreams of this run, and Table 1 with the published models.

The two never mix: Table 1 takes a student of this run only if it has all ten tasks of SUPERB on
their official corpora.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from skill.config.tasks import PROTOCOL, UNCONFIRMED
from skill.paper.markup import Cells
from skill.paper.sanity import violations
from skill.superb.metrics import METRICS, format_value
from skill.superb.result import limited
from skill.superb.score import REFERENCE_POINTS, superb_score
from skill.utils import machine
from skill.utils.errors import SkillError
from skill.utils.uncertainty import Variance, combined, students

Row = dict[str, Any]
SCORED = {name: point for points in REFERENCE_POINTS.values() for name, point in points.items()}
TABLE1 = ["model", "origin", "million_parameters", "hours", *SCORED]
TABLE1 += ["superb_score", "superb_score_without_qbe", "source"]
TABLE1_NOTE = (
    "Published rows are copied from the papers named; rows marked `this run` were measured here by "
    "the same protocol. Score: SUPERB's, of the eleven columns before it; beside it the score "
    "without query by example, whose value was never compared with the official scorer."
)
_CLASS = range(22, 32)  # whole millions of parameters
_TWO_METRICS = {("sf", "slot_f1"): "sf_f1", ("sf", "slot_cer"): "sf_cer"}
_AVERAGED = ("parameters", "value", "error", "head_seeds", "head_deviation")


def results(scores: Sequence[Row]) -> list[Row]:
    """One row per upstream, task and metric; students that differ in their seed are one upstream.

    `value` is the mean over seeds, `deviation` the standard deviation over seeds of students (empty
    for one), `head_deviation` that over seeds of heads, `low` and `high` the interval over voices
    and seeds (`skill.utils.uncertainty`). Of several students the variance over voices is their
    mean: the mean's own is no larger, and equal where a voice is as hard for all of them.
    """
    if not scores:
        return []
    frame = pd.DataFrame(list(scores))
    frame = frame.assign(**{key: pd.to_numeric(frame[key]) for key in _AVERAGED})
    pools = {name: _pool(group) for name, group in frame.groupby(["task", "metric"])}
    rows: list[Row] = []
    for _, group in frame.groupby(["base", "task", "metric"], sort=False):
        metric = str(group["metric"].iloc[0])
        first, values = group.iloc[0], list(group["value"])
        of_voices = Variance(float((group["error"] ** 2).mean()), int(first["clusters"]) - 1)
        pool = pools[first["task"], metric]
        heads = pool._replace(value=pool.value / first["head_seeds"])
        of_seeds = students(values) if len(values) > 1 else heads
        interval = combined(float(np.mean(values)), of_voices, of_seeds).interval()
        deviation = (group["head_deviation"] ** 2).mean() ** 0.5
        rows.append(
            {
                "upstream": first["base"],
                **{key: first[key] for key in ("kind", "method", "teachers", "sparsity")},
                "parameters": round(group["parameters"].mean()),
                "task": first["task"],
                "metric": metric,
                "value": float(np.mean(values)),
                "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else "",
                **limited(metric, *interval),
                "seeds": len(values),
                "head_seeds": int(first["head_seeds"]),
                "head_deviation": "" if np.isnan(deviation) else float(deviation),
                **{key: first[key] for key in ("items", "clusters", "unit")},
                **{key: first[key] for key in ("low_is_good", "synthetic")},
            }
        )
    return rows


def _pool(group: pd.DataFrame) -> Variance:
    """The variance of a head, from all systems of a task."""
    freedom = group["head_seeds"] - 1
    squares = (freedom * group["head_deviation"] ** 2).sum()
    return Variance(float(squares / max(1, freedom.sum())), int(freedom.sum()))


def undecided(rows: Sequence[Row], comparisons: Sequence[Row]) -> dict[tuple[str, str], str]:
    """(task, metric) that tell no teacher from log-mel features for certain: the differences.

    Such a task cannot tell students from each other, so it has no place in a table of methods.
    """
    teachers = {row["upstream"] for row in rows if row["kind"] == "teacher"}
    tests: dict[tuple[str, str], list[str]] = {}
    decided = set()
    for row in comparisons:
        pair = {row["first"], row["second"]}
        if "fbank" not in pair or not pair & teachers:
            continue
        sign = 1 if row["second"] == "fbank" else -1
        ends = sorted(sign * float(row[key]) for key in ("low", "high"))
        key = row["task"], row["metric"]
        if ends[0] > 0 or ends[1] < 0:
            decided.add(key)
        low, high = (f"{end:+.{1 if METRICS[key[1]].unit else 3}f}" for end in ends)
        tests.setdefault(key, []).append(f"{next(iter(pair & teachers))} [{low}, {high}]")
    return {key: ", ".join(found) for key, found in tests.items() if key not in decided}


def cells(rows: Sequence[Row]) -> Cells:
    """The rows of `results` as a table of upstreams × metrics, teachers first, then students."""
    frame = pd.DataFrame(list(rows))
    frame["text"] = [_cell(row) for row in rows]
    frame["kind"] = pd.Categorical(frame["kind"], ["teacher", "student", "fbank"], ordered=True)
    frame["task"] = pd.Categorical(frame["task"], list(PROTOCOL), ordered=True)
    upstreams = frame.drop_duplicates("upstream").sort_values("kind", kind="stable")
    columns = frame.drop_duplicates(["task", "metric"]).sort_values(["task", "metric"])
    wide = frame.pivot(index="upstream", columns=["task", "metric"], values="text").fillna("")
    head = ["upstream", "parameters", *(_title(row) for _, row in columns.iterrows())]
    names = list(columns[["task", "metric"]].itertuples(index=False, name=None))
    return [head] + [
        [row["upstream"], f"{row['parameters'] / 1e6:.2f} M", *wide.loc[row["upstream"], names]]
        for _, row in upstreams.iterrows()
    ]


def _title(row: pd.Series) -> str:
    arrow = "↓" if METRICS[row["metric"]].low_is_good else "↑"
    marked = " (synthetic)" if row["synthetic"] == "True" else ""
    unit = f" {row['unit']}" if row["unit"] else ""
    counts = f"n = {row['items']} in {row['clusters']} groups"
    return f"{row['task'].upper()}{marked} {row['metric']}{unit} {arrow}, {counts}"


def note(
    rows: Sequence[Row],
    comparisons: Sequence[Row] = (),
    machines: Sequence[Mapping[str, Any]] = (),
) -> str:
    """What brackets mean, what can be told apart, what machine it was, and what is odd."""
    over = ["groups of the n test items, a voice each"]
    several = any(row["seeds"] > 1 for row in rows)
    over += ["seeds of students"] if several else []
    heads = sorted({row["head_seeds"] for row in rows if row["head_seeds"] > 1})
    over += [f"{' or '.join(map(str, heads))} seeds of heads"] if heads else []
    text = f"In brackets: 95 % interval over {', and over '.join(over)}"
    text += "; ±: standard deviation over seeds of students." if several else "."
    left_out = [
        f"{task.upper()} {metric} ({tests})"
        for (task, metric), tests in undecided(rows, comparisons).items()
    ]
    absent = (
        "Not in the table, because they do not tell a teacher from log-mel features for certain "
    )
    absent += f"(difference, 95 % interval): {'; '.join(left_out)}."
    parts = [text, absent if left_out else "", smallest_difference(comparisons)]
    parts.append(machine.line(machines))
    text = "\n\n".join(part for part in parts if part)
    if broken := violations(rows, comparisons):
        text += "\n\nFBANK < student ≤ teacher is expected on content and speaker tasks, but:\n\n"
        text += "\n".join(f"* {line}" for line in broken)
    return text


def smallest_difference(comparisons: Sequence[Row]) -> str:
    """What the paired test would find with 80 % power, per task: the median over the pairs.

    Two that answer every item alike say nothing of it.
    """
    frame = pd.DataFrame([row for row in comparisons if float(row["detectable"]) > 0])
    if frame.empty:
        return ""
    frame["detectable"] = pd.to_numeric(frame["detectable"])
    medians = frame.groupby(["task", "metric"], sort=False)["detectable"].median()
    texts = [
        f"{row['task'].upper()} {row['metric']} {format_value(row['detectable'], row['metric'])}"
        for row in medians.reset_index().to_dict("records")
    ]
    return (
        "Smallest difference between two rows that the paired test would find with 80 % power "
        f"(median over the pairs): {', '.join(texts)}."
    )


def _cell(row: Row) -> str:
    value, low, high = (format_value(row[key], row["metric"]) for key in ("value", "low", "high"))
    spread = f" ± {format_value(row['deviation'], row['metric'])}" if row["deviation"] != "" else ""
    return f"{value}{spread} [{low}, {high}]"


def official(scores: Sequence[Row]) -> dict[str, Row]:
    """{upstream: its results by the names of `superb_score`} where all ten tasks are SUPERB's.

    That is, with its corpora and values; query by example is among them, though unconfirmed.
    """
    chosen = [
        r for r in scores
        if (r["official"] == "True" or r.get("unconfirmed")) and r["synthetic"] == "False"
    ]  # fmt: skip
    boards: dict[str, Row] = {}
    for row in results(chosen):
        main = row["metric"] == PROTOCOL[row["task"]].metrics[0]
        name = _TWO_METRICS.get((row["task"], row["metric"]), row["task"] if main else "")
        if name in SCORED:
            board = boards.setdefault(row["upstream"], {"row": row})
            board[name] = row["value"]
    return {upstream: board for upstream, board in boards.items() if SCORED.keys() <= board.keys()}


def table1(scores: Sequence[Row], published: Sequence[Mapping[str, str]]) -> list[Row]:
    """Teachers, published students of 22 to 31 million parameters, and this run's students.

    Raises:
        SkillError: no student of this run has all ten tasks on their official corpora.
    """
    our_students = {n: b for n, b in official(scores).items() if b["row"]["kind"] == "student"}
    if not our_students:
        raise SkillError(
            "table1: no student has all ten tasks on their official corpora, and other results do "
            "not belong beside published ones"
        )
    rows: list[Row] = [
        {
            "model": row["model"],
            "origin": "published",
            "million_parameters": float(row["million_parameters"]),
            "hours": row["hours"],
            **{name: float(row[name]) for name in SCORED},
            "source": row["source"],
        }
        for row in published
        if not row["hours"] or int(float(row["million_parameters"])) in _CLASS
    ]
    for name, board in our_students.items():
        rows.append(
            {
                "model": name,
                "origin": "this run",
                "million_parameters": board["row"]["parameters"] / 1e6,
                "hours": "",
                **{key: board[key] for key in SCORED},
                "source": "this run",
            }
        )
    for row in rows:
        row["superb_score"] = superb_score({name: row[name] for name in SCORED})
        row["superb_score_without_qbe"] = superb_score(
            {name: row[name] for name in SCORED if name not in UNCONFIRMED}, UNCONFIRMED
        )
    teachers = [row for row in rows if row["origin"] == "published" and not row["hours"]]
    students = [row for row in rows if row not in teachers]
    return teachers + sorted(students, key=lambda row: -row["superb_score"])


def table1_cells(rows: Sequence[Row]) -> Cells:
    """Table 1 as text, in the units of the papers."""
    arrows = {name: "↑" if point.topline > point.fbank else "↓" for name, point in SCORED.items()}
    titles = [f"{name.upper().replace('_', ' ')} {arrows[name]}" for name in SCORED]
    lines = [
        [
            "model",
            "parameters",
            "hours",
            *titles,
            "score ↑",
            "score without QbE ↑",
            "source",
        ]
    ]
    for row in rows:
        numbers = [f"{row[name]:.4f}" if name == "qbe" else f"{row[name]:.2f}" for name in SCORED]
        size = f"{row['million_parameters']:.2f} M"
        both = [f"{row[key]:.0f}" for key in ("superb_score", "superb_score_without_qbe")]
        lines.append([row["model"], size, row["hours"], *numbers, *both, row["source"]])
    return lines
