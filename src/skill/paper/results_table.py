"""Tables of results: all upstreams of this run, and Table 1 with the published models.

The two never mix: Table 1 takes a student of this run only if it has all ten tasks of SUPERB on
their official corpora.
"""

from collections.abc import Mapping, Sequence
from html import escape
from statistics import mean, stdev
from typing import Any

from skill.config.tasks import PROTOCOL, UNCONFIRMED
from skill.paper.sanity import violations
from skill.superb.metrics import METRICS, format_value
from skill.superb.score import REFERENCE_POINTS, superb_score
from skill.utils import machine
from skill.utils.errors import SkillError

Row = dict[str, Any]
Cells = list[list[str]]
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
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 14px/1.4 "DejaVu Sans", sans-serif; color: #222; margin: 1.5em }}
table {{ border-collapse: collapse; border-top: 2px solid #222; border-bottom: 2px solid #222 }}
th, td {{ padding: 3px 10px; text-align: right; vertical-align: bottom }}
th {{ border-bottom: 1px solid #222 }}
th:first-child, td:first-child {{ text-align: left }}
tr:nth-child(even) td {{ background: #f4f4f4 }}
</style></head><body>
<h1>{title}</h1>
<table>
{rows}
</table>
<p>{note}</p>
</body></html>
"""


def results(scores: Sequence[Row]) -> list[Row]:
    """One row per upstream, task and metric; students that differ in their seed are one upstream.

    `value` is the mean over seeds, `deviation` their standard deviation (empty for one seed), `low`
    and `high` the means of the bootstrap intervals' ends.
    """
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in scores:
        groups.setdefault((row["base"], row["task"], row["metric"]), []).append(row)
    rows = []
    for (base, task, metric), members in groups.items():
        values = [float(member["value"]) for member in members]
        rows.append(
            {
                "upstream": base,
                **{key: members[0][key] for key in ("kind", "method", "teachers", "sparsity")},
                "parameters": round(mean(float(member["parameters"]) for member in members)),
                "task": task,
                "metric": metric,
                "value": mean(values),
                "deviation": stdev(values) if len(values) > 1 else "",
                "low": mean(float(member["low"]) for member in members),
                "high": mean(float(member["high"]) for member in members),
                "seeds": len(members),
                **{key: members[0][key] for key in ("items", "clusters", "unit")},
                **{key: members[0][key] for key in ("low_is_good", "synthetic")},
            }
        )
    return rows


def cells(rows: Sequence[Row]) -> Cells:
    """The rows of `results` as a table of upstreams × metrics, teachers first, then students."""
    kinds = ["teacher", "student", "fbank"]
    ranks = {r["upstream"]: kinds.index(r["kind"]) for r in rows}
    order = {task: index for index, task in enumerate(PROTOCOL)}
    columns = sorted({(order[r["task"]], r["task"], r["metric"]) for r in rows})
    found = {(r["upstream"], r["task"], r["metric"]): r for r in rows}
    head = ["upstream", "parameters"]
    for _, task, metric in columns:
        row = next(r for r in rows if (r["task"], r["metric"]) == (task, metric))
        arrow = "↓" if METRICS[metric].low_is_good else "↑"
        marked = " (synthetic)" if row["synthetic"] == "True" else ""
        unit = f" {row['unit']}" if row["unit"] else ""
        counts = f"n = {row['items']} in {row['clusters']} groups"
        head.append(f"{task.upper()}{marked} {metric}{unit} {arrow}, {counts}")
    lines = [head]
    for name in sorted(ranks, key=lambda upstream: ranks[upstream]):
        first = next(r for r in rows if r["upstream"] == name)
        line = [name, f"{first['parameters'] / 1e6:.2f} M"]
        line += [_cell(found.get((name, task, metric))) for _, task, metric in columns]
        lines.append(line)
    return lines


def note(rows: Sequence[Row], machines: Sequence[Mapping[str, Any]] = ()) -> str:
    """What the brackets of `cells` say, where it was computed, and where it is not as expected."""
    several = any(r["seeds"] > 1 for r in rows)
    text = "In brackets: 95 % bootstrap interval over groups of the n test items, a voice each" + (
        "; ±: standard deviation over seeds." if several else "."
    )
    if made_on := machine.line(machines):
        text += f"\n\n{made_on}"
    if broken := violations(rows):
        text += "\n\nFBANK < student ≤ teacher is expected on content and speaker tasks, but:\n\n"
        text += "\n".join(f"* {line}" for line in broken)
    return text


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
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
    ours = {n: b for n, b in official(scores).items() if b["row"]["kind"] == "student"}
    if not ours:
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
    for name, board in ours.items():
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
    lines = [["model", "parameters", "hours", *titles, "score ↑", "score without QbE ↑", "source"]]
    for row in rows:
        numbers = [f"{row[name]:.4f}" if name == "qbe" else f"{row[name]:.2f}" for name in SCORED]
        size = f"{row['million_parameters']:.2f} M"
        both = [f"{row[key]:.0f}" for key in ("superb_score", "superb_score_without_qbe")]
        lines.append([row["model"], size, row["hours"], *numbers, *both, row["source"]])
    return lines


def markdown(cells: Cells, note: str) -> str:
    """A Markdown table, its first row the head, and a note below."""
    head, *body = cells
    lines = [head, ["---"] * len(head), *body]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\n{note}\n"


def html(title: str, cells: Cells, note: str) -> str:
    """The same as a page of its own, for the report."""
    head, *body = (list(map(escape, line)) for line in cells)
    lines = ["<tr><th>" + "</th><th>".join(head) + "</th></tr>"]
    lines += ["<tr><td>" + "</td><td>".join(line) + "</td></tr>" for line in body]
    return _PAGE.format(
        title=escape(title), rows="\n".join(lines), note=escape(note).replace("\n", "<br>")
    )
