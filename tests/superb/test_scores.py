"""The table of scores and paired comparisons."""

from types import SimpleNamespace

import numpy as np
import pytest

from skill.superb import scores
from skill.utils.errors import SkillError
from skill.utils.files import read_csv, read_json, write_csv, write_json


def job(**upstreams):
    about = {"method": "", "base": "", "teachers": (), "sparsity": None, "seed": None}
    return SimpleNamespace(
        upstreams={n: SimpleNamespace(kind=kind, **about) for n, kind in upstreams.items()}
    )


def result(upstream, task, metrics, official=False, synthetic=False):
    measured = {"low": 0, "high": 1, "items": 9, "clusters": 3, "unit": "%", "low_is_good": True,
                "error": 0.5, "heads": [1.0, 2.0]}  # fmt: skip
    return {
        "upstream": upstream, "task": task, "title": task, "official": official and task != "qbe",
        "synthetic": synthetic, "protocol": "clean", "model": {"parameters": 5},
        "unconfirmed": "never compared" if official and task == "qbe" else None,
        "metrics": {name: {"value": v, **measured} for name, v in metrics.items()},
    }  # fmt: skip


def test_table_gathers_results_and_scores_only_official_ones(tmp_path):
    board = {
        "pr": {"per": 5.41}, "asr": {"wer": 6.42, "cer": 2.0}, "ks": {"accuracy": 96.30},
        "qbe": {"mtwv": 0.0736}, "sid": {"accuracy": 81.42}, "asv": {"eer": 5.11},
        "sd": {"der": 5.88, "der_clean": 6.0}, "ic": {"accuracy": 98.34},
        "sf": {"slot_f1": 88.53, "slot_cer": 25.20}, "er": {"accuracy": 64.92},
    }  # fmt: skip
    paths = []
    for name, official in (("hubert", True), ("small", False)):
        for task, metrics in board.items():
            paths.append(tmp_path / name / f"{task}.json")
            write_json(paths[-1], result(name, task, metrics, official=official))
    paths.append(tmp_path / "hubert" / "size.json")
    write_json(paths[-1], {"upstream": "hubert", "parameters": 94, "macs": 7,
                           "real_time_factor": 0.1})  # fmt: skip
    scores.run(paths, job(hubert="teacher", small="student"), tmp_path / "s.json",
              tmp_path / "s.csv")  # fmt: skip
    values = read_json(tmp_path / "s.json")
    assert values["hubert"]["superb_score"] == pytest.approx(941.0, abs=0.5)
    nine = values["hubert"]["superb_score_without_qbe"]  # QbE alone has 1000 points
    assert 9 * nine + 1000 == pytest.approx(10 * values["hubert"]["superb_score"])
    assert "qbe: MTWV was never compared" in values["hubert"]["superb_score_note"]
    assert "superb_score" not in values["small"] and "superb_rank" not in values["small"]
    rows = read_csv(tmp_path / "s.csv")
    assert rows[0]["task"] == "pr" and rows[0]["parameters"] == "94"
    assert (rows[0]["head_seeds"], rows[0]["head_deviation"]) == ("2", "0.707107")
    assert "der_clean" not in {row["metric"] for row in rows}
    with pytest.raises(SkillError, match="small, which the parameters do not have"):
        scores.run(paths, job(hubert="teacher"), tmp_path / "s.json", tmp_path / "s.csv")


def test_comparisons_pair_the_items(tmp_path):
    generator = np.random.default_rng(0)
    for name, errors in (("a-seed1", 1), ("b-seed1", 3), ("a-seed2", 1), ("b-seed3", 3)):
        rows = [
            {"id": f"u{i}", "cluster": f"s{i % 9}", "head_seed": head,
             "per": float(generator.integers(0, errors + 1)), "per_of": 10.0}
            for i in range(90) for head in (1, 100001)
        ]  # fmt: skip
        write_csv(tmp_path / name / "pr.csv", rows, list(rows[0]))
        write_json(tmp_path / name / "pr.json", {"synthetic": True})
    students = {
        "a": {1: "a-seed1", 2: "a-seed2"},
        "b": {1: "b-seed1", 3: "b-seed3"},
        "absent": {1: "absent-seed1"},
        "unlike": {2: "a-seed2"},
    }
    given = [tmp_path / name / "pr.csv" for name in ("a-seed1", "b-seed1")]
    assert len(scores.comparisons(given, students, resamples=200)) == 1  # the others lie there, too
    given += [tmp_path / name / "pr.csv" for name in ("a-seed2", "b-seed3")]
    found = scores.comparisons(given, students, resamples=200)
    assert [(row["first"], row["second"], row["seeds"]) for row in found] == [
        ("a", "b", 1), ("a", "unlike", 1), ("b", "unlike", 2),
    ]  # fmt: skip
    assert {row["head_seeds"] for row in found} == {2}
    assert found[0]["difference"] < 0 and found[0]["p_value"] < 0.05
    assert found[1]["difference"] == 0 and found[1]["synthetic"] is True
    write_csv(tmp_path / "b-seed3/pr.csv", rows[:2], list(rows[0]))
    with pytest.raises(SkillError, match=r"b-seed3/pr\.csv are not of the same test items"):
        scores.comparisons(given, students, resamples=200)


def test_heads_that_disagree_make_a_difference_uncertain(tmp_path):
    """The same mean difference, with heads that agree and with heads that do not."""
    found = {}
    for spread in (0.0, 3.0):
        given = []
        for name, shift in (("a", 0.0), ("b", 2.0)):
            rows = [
                {"id": f"u{i:02}", "cluster": f"s{i % 9}", "head_seed": head,
                 "per": 30 + i % 7 + shift * (1 + 0.1 * (i % 9)) + sign * spread, "per_of": 100.0}
                for i in range(90) for head, sign in ((1, -1), (2, 1))
            ]  # fmt: skip
            given.append(tmp_path / f"{spread}" / name / "pr.csv")
            write_csv(given[-1], rows, list(rows[0]))
            write_json(given[-1].with_suffix(".json"), {"synthetic": False})
        (found[spread],) = scores.comparisons(given, {"a": {0: "a"}, "b": {0: "b"}}, 300)
    sure, unsure = found[0.0], found[3.0]
    assert sure["difference"] == pytest.approx(unsure["difference"])
    assert sure["high"] < 0 < unsure["high"] and sure["detectable"] < unsure["detectable"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.pop("official"), "result.official: missing"),
        (lambda r: r["metrics"]["per"].pop("heads"), "metrics.per.heads: missing"),
        (lambda r: r.update(task="spk"), "task 'spk' is unknown"),
        (lambda r: r.pop("upstream"), "result.upstream: missing"),
    ],
)
def test_a_result_of_other_content_is_named(tmp_path, change, said):
    made = result("small", "pr", {"per": 5.0})
    change(made)
    write_json(tmp_path / "pr.json", made)
    with pytest.raises(SkillError, match=f"pr.json: .*{said}"):
        scores.run([tmp_path / "pr.json"], job(small="student"), tmp_path / "s", tmp_path / "t")
    write_json(tmp_path / "pr.json", [1])
    with pytest.raises(SkillError, match="a mapping was expected"):
        scores.run([tmp_path / "pr.json"], job(small="student"), tmp_path / "s", tmp_path / "t")


def test_a_table_of_items_of_other_content_is_named(tmp_path):
    write_json(tmp_path / "a/pr.json", {"synthetic": True})
    rows = [{"id": "u", "cluster": "s", "head_seed": 1, "per": "many", "per_of": 1.0}]
    for columns, said in ((["id", "per"], "no column cluster"), (list(rows[0]), "is no number")):
        write_csv(tmp_path / "a/pr.csv", [{c: rows[0][c] for c in columns}], columns)
        with pytest.raises(SkillError, match=rf"a/pr\.csv: .*{said}"):
            scores.comparisons([tmp_path / "a/pr.csv"], {"a": {0: "a"}}, 10)
