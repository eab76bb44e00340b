"""FBANK < student ≤ teacher, on constructed tables."""

import pytest

from skill.paper.markup import markdown
from skill.paper.results_table import cells, note, results
from skill.paper.sanity import violations
from skill.utils.files import read_csv, write_csv


def row(upstream, kind, task, value, metric="accuracy", teachers="", width=1.0):
    return {
        "upstream": upstream, "base": upstream, "kind": kind, "method": "", "teachers": teachers,
        "sparsity": "", "seed": "", "parameters": 10, "task": task, "metric": metric,
        "value": value, "low": value - width, "high": value + width, "items": 9, "unit": "%",
        "clusters": 3, "error": width / 4.3027, "head_seeds": 1, "head_deviation": "",
        "low_is_good": metric in ("per", "wer", "eer", "der"), "synthetic": task in ("ic", "er"),
    }  # fmt: skip


def table(task, fbank, student, teacher, metric="accuracy", width=1.0):
    return [
        row("wavlm", "teacher", task, teacher, metric, width=width),
        row("small", "student", task, student, metric, "wavlm", width),
        row("fbank", "fbank", task, fbank, metric, width=width),
    ]


@pytest.mark.parametrize(("task", "metric", "values"), [
    ("sid", "accuracy", (20, 60, 80)), ("sid", "accuracy", (20, 80, 80)),
    ("pr", "per", (80, 10, 5)), ("er", "accuracy", (70, 50, 40)),
    ("ic", "accuracy", (70, 50, 40)), ("asr", "cer", (1, 2, 3)),
])  # fmt: skip
def test_a_good_table_says_nothing(task, metric, values):
    assert violations(table(task, *values, metric)) == []


def compared(task, low, high, metric="accuracy", first="small", second="wavlm"):
    return {"task": task, "metric": metric, "first": first, "second": second,
            "low": str(low), "high": str(high)}  # fmt: skip


def test_each_violation_is_said_with_its_reason():
    assert violations(table("sid", 76.65, 53.81, 56.35)) == [
        "SID accuracy: small (53.81) does not beat fbank (76.65): nor does the teacher "
        "wavlm (56.35), which has little to give here."
    ]
    rows, said = table("pr", 89.43, 86.07, 87.07, "per"), "PR per: small (86.07) beats its teacher"
    assert violations(rows, [compared("pr", -2.1, 0.1, "per")]) == [
        f"{said} wavlm (87.07): the 95 % interval of their difference holds 0."
    ]
    for others in ([compared("pr", -2.1, -0.1, "per")], [compared("ks", -1, 1)], []):
        assert violations(rows, others) == [f"{said} wavlm (87.07): the table does not explain it."]
    assert violations(table("ks", 50, 40, 90), [compared("ks", -4, 16, first="fbank",
                                                         second="small")]) == [
        "KS accuracy: small (40.00) does not beat fbank (50.00): "
        "the 95 % interval of their difference holds 0."
    ]  # fmt: skip
    (only,) = violations(table("asv", 9, 3, 5, "eer", width=0.5))
    assert only.endswith("beats its teacher wavlm (5.00): the table does not explain it.")
    assert len(violations(table("ks", 50, 50, 49))) == 2


def test_students_with_the_same_violation_share_a_sentence():
    rows = table("ks", 50, 40, 90, width=6)
    others = [row(name, "student", "ks", value, teachers="wavlm", width=6)
              for name, value in (("tiny", 45), ("poor", 20))]  # fmt: skip
    pairs = [compared("ks", -9, 1, first=name, second="fbank") for name in ("small", "tiny")]
    assert violations([*rows, *others], pairs) == [
        "KS accuracy: small (40.00), tiny (45.00) do not beat fbank (50.00): "
        "the 95 % interval of their difference holds 0.",
        "KS accuracy: poor (20.00) does not beat fbank (50.00): the table does not explain it.",
    ]


def test_the_best_of_several_teachers_counts():
    rows = table("ks", 10, 60, 50)
    rows[1]["teachers"] = "wavlm+hubert"
    assert len(violations(rows)) == 1
    assert violations([*rows, row("hubert", "teacher", "ks", 70)]) == []
    assert violations(rows[1:2]) == []  # nothing to compare with


def test_the_note_stands_under_the_table_and_synthetic_tasks_are_marked(tmp_path):
    good, bad = table("sid", 20, 60, 80), table("sid", 76, 53, 56)
    synthetic = table("ic", 20, 60, 80)
    for rows, said in ((good, False), (bad, True), ([*good, *synthetic], False)):
        write_csv(tmp_path / "scores.csv", rows, list(rows[0]))
        found = results(read_csv(tmp_path / "scores.csv"))
        text = markdown(cells(found), note(found))
        assert ("FBANK < student ≤ teacher" in text) == said
        assert ("* SID accuracy: small (53.00) does not beat" in text) == said
    assert "IC (synthetic) accuracy" in text and "SID accuracy" in text
    marks = {row["task"]: row["synthetic"] for row in results(read_csv(tmp_path / "scores.csv"))}
    assert marks == {"sid": "False", "ic": "True"}
