"""Is a table plausible? On content and speaker tasks, FBANK < student ≤ teacher is expected.

A student beside its teacher was distilled from it, and log-mel features know nothing of speech. A
table that says otherwise is not wrong, but has to say why: what the table itself can tell is the
explanation here (a difference that can be chance, a teacher that loses to FBANK, too).
"""

from collections.abc import Container, Mapping, Sequence
from typing import Any

from skill.config.tasks import PROTOCOL
from skill.superb.metrics import format_value

TASKS = ("pr", "asr", "ks", "qbe", "sid", "asv", "sd")  # content, then speaker
Row = Mapping[str, Any]
_VERBS = {
    ("lose", False): "does not beat",
    ("lose", True): "do not beat",
    ("win", False): "beats its teacher",
    ("win", True): "beat their teacher",
}


def violations(rows: Sequence[Row], comparisons: Sequence[Row] = ()) -> list[str]:
    """One sentence for all students who are out of order in the same way for the same reason.

    `rows`: the table of results, numbers or their texts; upstream, kind, teachers (`a+b`), task,
    metric, value, low, high, low_is_good. Of a task the first metric counts, and a student of
    several teachers is held to the best. `comparisons`: those in pairs
    (`skill.superb.scores.comparisons`). Intervals of two values that overlap would be no test: over
    the same voices their difference varies less than they do.
    """
    chance = {
        (row["task"], row["metric"], frozenset((row["first"], row["second"])))
        for row in comparisons
        if float(row["low"]) <= 0 <= float(row["high"])
    }
    broken: dict[tuple[str, str, str, str], list[str]] = {}
    for task in TASKS:
        metric = PROTOCOL[task].metrics[0]
        main = [row for row in rows if (row["task"], row["metric"]) == (task, metric)]
        by_name = {row["upstream"]: row for row in main}
        fbank = next((row for row in main if row["kind"] == "fbank"), None)
        title = f"{task.upper()} {metric}"
        for student in (row for row in main if row["kind"] == "student"):
            teachers = [by_name[n] for n in str(student["teachers"]).split("+") if n in by_name]
            teacher = max(teachers, key=_merit) if teachers else None
            if fbank and _merit(student) <= _merit(fbank):
                why = _why(chance, student, fbank, teacher)
                broken.setdefault((title, "lose", _named(fbank), why), []).append(_named(student))
            if teacher and _merit(student) > _merit(teacher):
                why = _why(chance, student, teacher)
                broken.setdefault((title, "win", _named(teacher), why), []).append(_named(student))
    return [
        f"{title}: {', '.join(students)} {_VERBS[kind, len(students) > 1]} {other}: {why}."
        for (title, kind, other, why), students in broken.items()
    ]


def _merit(row: Row) -> float:
    """The value, larger is better."""
    return -float(row["value"]) if str(row["low_is_good"]) == "True" else float(row["value"])


def _named(row: Row) -> str:
    return f"{row['upstream']} ({format_value(float(row['value']), row['metric'])})"


def _why(
    chance: Container[tuple[str, str, frozenset[str]]],
    student: Row,
    other: Row,
    teacher: Row | None = None,
) -> str:
    names = frozenset(row.get("base") or row["upstream"] for row in (student, other))
    reasons = []
    if (student["task"], student["metric"], names) in chance:
        reasons.append("the 95 % interval of their difference holds 0")
    if teacher is not None and _merit(teacher) <= _merit(other):
        reasons.append(f"nor does the teacher {_named(teacher)}, which has little to give here")
    return "; ".join(reasons) or "the table does not explain it"
