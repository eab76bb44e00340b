"""Tables: averages by hand, parameters as the encoder counts them, pictures twice alike."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from skill.config.jobs import PaperJob, Upstream
from skill.config.load import load
from skill.config.students import baselines, references, sweeps
from skill.config.tasks import PROTOCOL
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.paper import figure_data
from skill.paper.figure_data import curves, layers
from skill.paper.figures import draw
from skill.paper.markup import html, markdown
from skill.paper.results_table import (
    SCORED,
    cells,
    note,
    official,
    results,
    table1,
    table1_cells,
)
from skill.paper.tables import run
from skill.superb.metrics import METRICS
from skill.superb.score import REFERENCE_POINTS, superb_score
from skill.utils.errors import SkillError
from skill.utils.files import read_csv, write_csv, write_json, write_tensors

ROOT = Path(__file__).parents[2]
PUBLISHED = read_csv(ROOT / "data/published.csv")

JOB = PaperJob(upstreams={"a": Upstream(kind="student")}, bootstrap=10)


def score(upstream: str, base: str, value: float, **other: Any) -> dict[str, str]:
    row = {
        "upstream": upstream, "base": base, "kind": "student", "method": "skill", "teachers": "t",
        "sparsity": "0.75", "parameters": "1000000", "task": "pr", "metric": "per",
        "value": value, "low": value - 1, "high": value + 2, "items": 7, "clusters": 3, "unit": "%",
        "error": 0.5, "head_seeds": 1, "head_deviation": "",
        "low_is_good": "True", "synthetic": "False", "official": "False", "macs": 5e9,
        "real_time_factor": 0.01,
    }  # fmt: skip
    return {key: str(item) for key, item in (row | other).items()}


def test_seeds_are_averaged() -> None:
    scores = [score("a-seed1", "a", 10.0), score("a-seed2", "a", 14.0)]
    scores.append(score("fbank", "fbank", 50.0, kind="fbank", parameters=0))
    row, floor = results(scores)
    assert (row["upstream"], row["seeds"], row["value"]) == ("a", 2, 12.0)
    assert row["deviation"] == pytest.approx(8**0.5)
    half = 4.3027 * 0.25 + 12.7062 * 4.0  # t of 2 and 1 degrees, variances of voices and students
    assert row["high"] - 12 == pytest.approx(half / 4.25**0.5, abs=1e-3) and row["low"] == 0
    assert floor["deviation"] == ""
    text = markdown(cells([row, floor]), note([row, floor]))
    assert "| a | 1.00 M | 12.00 ± 2.83 [0.00, 37.18] |" in text
    assert "| fbank | 0.00 M | 50.00 [47.85, 52.15] |" in text
    assert "PR per % ↓, n = 7" in text


def test_seeds_of_heads_widen_intervals_and_are_named() -> None:
    heads = {"head_seeds": 2, "error": 0.0}
    rows = results(
        [
            score("a", "a", 10.0, **heads, head_deviation=3.0),
            score("b", "b", 10.0, **heads, head_deviation=1.0),
        ]
    )
    half = 4.3027 * (5 / 2) ** 0.5  # pooled: (9 + 1) / 2 with 2 degrees, of a mean of two heads
    assert [row["high"] - 10 for row in rows] == pytest.approx([half, half], abs=1e-3)
    assert [row["head_deviation"] for row in rows] == [3.0, 1.0]
    assert "a voice each, and over 2 seeds of heads." in note(rows)
    pair = {"task": "pr", "metric": "per", "first": "a", "second": "b", "low": "-1", "high": "1"}
    pairs = [pair | {"detectable": d} for d in ("3.0", "1.0", "inf", "0")]
    assert "80 % power (median over the pairs): PR per 3.00." in note(rows, pairs)


def test_a_task_that_tells_nothing_leaves_the_table(tmp_path: Path) -> None:
    rows = [
        score(name, name, value, kind=kind, task=task, metric=metric)
        for name, kind, value in (("t", "teacher", 40.0), ("fbank", "fbank", 80.0))
        for task, metric in (("pr", "per"), ("ks", "accuracy"))
    ]
    pairs = [
        {"task": "pr", "metric": "per", "first": "fbank", "second": "t", "low": 38, "high": 42},
        {"task": "ks", "metric": "accuracy", "first": "t", "second": "fbank", "low": -9, "high": 1},
    ]
    pairs = [{**dict.fromkeys(figure_data.COMPARISONS, ""), **p, "detectable": 2} for p in pairs]
    write_csv(tmp_path / "scores.csv", rows, list(rows[0]))
    write_csv(tmp_path / "comparisons.csv", pairs, figure_data.COMPARISONS)
    files = [tmp_path / "scores.csv", tmp_path / "comparisons.csv"]
    run("results", JOB, files, tmp_path / "results.csv")
    text = (tmp_path / "results.md").read_text()
    assert "KS accuracy (t [-9.0, +1.0])." in text  # in the note
    assert "PR per % ↓" in text and "KS accuracy %" not in text  # as columns
    assert {row["task"] for row in read_csv(tmp_path / "results.csv")} == {"pr", "ks"}


def test_shares_stay_within_their_limits() -> None:
    for value, expected in ((99.0, (97.0, 100.0)), (1.0, (0.0, 3.0))):
        accuracy = {"task": "ks", "metric": "accuracy", "error": 2 / 4.3027}
        (row,) = results([score("a", "a", value, **accuracy)])
        assert (row["low"], row["high"]) == pytest.approx(expected, abs=1e-3)


def test_texts_of_others_cannot_leave_their_cell() -> None:
    cells = [["upstream", "PR"], ["a|b\n<b>", "\x1b[2J=1+1"]]
    text, page = markdown(cells, ""), html("T", cells, "<i>")
    assert text.splitlines()[2] == "| a\\|b &lt;b> | \ufffd[2J=1+1 |"
    assert "&lt;b&gt;" in page and "<i>" not in page and "\x1b" not in page


def test_a_table_of_two_kinds_of_machine_says_so(tmp_path: Path) -> None:
    write_csv(tmp_path / "scores.csv", rows := [score("a", "a", 1.0)], list(rows[0]))
    files = [tmp_path / "scores.csv", tmp_path / "comparisons.csv"]
    write_csv(files[1], [], figure_data.COMPARISONS)
    for name, isa in (("one", "AVX2"), ("two", "AVX2"), ("old", "")):
        stamp = {"machine": {"processor": "P", "onednn_isa": isa, "threads": 1}} if isa else {}
        write_json(tmp_path / f"{name}.json", {"provenance": stamp})
        files.append(tmp_path / f"{name}.json")
    for isa, said in (("AVX2", "Computed on P,"), ("AVX512_CORE", "on 2 kinds of machine, which")):
        write_json(files[2], {"provenance": {"machine": {"processor": "P", "onednn_isa": isa}}})
        run("results", JOB, files, tmp_path / "results.csv")
        assert said in (tmp_path / "results.md").read_text()
        assert said in (tmp_path / "results.html").read_text()


def test_synthetic_results_are_marked() -> None:
    rows = results([score("a", "a", 1.0, synthetic="True")])
    assert cells(rows)[0][2].startswith("PR (synthetic)")


def test_updates_go_on_through_both_stages(tmp_path: Path) -> None:
    files = []
    for stage, steps in (("stage1", (10, 20)), ("stage2", (5,))):
        file = tmp_path / stage / "a.csv"
        write_csv(file, [{"step": s, "distillation": 0.5} for s in steps], ["step", "distillation"])
        files.append(file)
    assert [row["update"] for row in curves(files, JOB)] == [10, 20, 25]


def test_parameters_of_a_block_are_the_encoders(tmp_path: Path) -> None:
    config = EncoderConfig.uniform("hubert", width=16, blocks=2, heads=4, ffn=24, conv=8)
    encoder = SpeechEncoder(config)
    write_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(1)}, {"config": config.to_dict()})
    full = {"heads": [4, 4], "ffn": [24, 24], "conv_channels": [8] * 7}
    write_json(tmp_path / "a.json", {"teacher": full})
    rows = layers([tmp_path / "a.json", tmp_path / "a.safetensors"], JOB)
    block = encoder.encoder.layers[1]
    for unit, module in (("head", block.attention), ("ffn", block.feed_forward)):
        row = next(r for r in rows if r["unit"] == unit and r["layer"] == 2)
        assert row["parameters"] == sum(p.numel() for p in module.parameters())
    conv = next(r for r in rows if r["unit"] == "conv" and r["layer"] == 2)
    weight = encoder.feature_extractor.conv_layers[1].conv.weight
    assert conv["parameters"] == weight.numel()


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SkillError, match="no such table"):
        run("poem", JOB, [], tmp_path / "poem.csv")
    with pytest.raises(SkillError, match="no such figure"):
        draw("poem", tmp_path / "a.csv", tmp_path / "a.pdf", tmp_path / "a.png")


def test_seeds_of_a_student_are_one_row(tmp_path: Path) -> None:
    """Of size (the first metric of a task only) and of what is left."""
    scores = [score("a-seed1", "a", 10.0), score("a-seed2", "a", 14.0, macs=7e9)]
    scores.append(score("a-seed1", "a", 50.0, task="asr", metric="cer"))
    write_csv(tmp_path / "scores.csv", scores, list(scores[0]))
    run("size", JOB, [tmp_path / "scores.csv"], tmp_path / "size.csv")
    (row,) = read_csv(tmp_path / "size.csv")
    assert (row["upstream"], row["value"], row["macs"]) == ("a", "12", "6e+09")
    job = PaperJob(
        upstreams={f"a-seed{n}": Upstream(kind="student", base="a", seed=n) for n in (1, 2)},
        bootstrap=10,
    )
    files = []
    for seed, heads in ((1, (0, 1)), (2, (0, 1, 2))):
        config = EncoderConfig.uniform("hubert", width=16, blocks=1, heads=4, ffn=24, conv=8)
        config = replace(config, heads=(heads,))
        files += [tmp_path / f"a-seed{seed}.json", tmp_path / f"a-seed{seed}.safetensors"]
        write_tensors(files[-1], {"x": torch.zeros(1)}, {"config": config.to_dict()})
        full = {"heads": [4], "ffn": [24], "conv_channels": [8] * 7}
        write_json(files[-2], {"teacher": full})
    (row,) = (r for r in layers(files, job) if r["unit"] == "head")
    assert (row["student"], row["left"], row["of"]) == ("a", 2.5, 4)


def official_scores(upstream: str, **other: Any) -> list[dict[str, str]]:
    """All ten tasks, with the values that SUPERB counts as 1000 points."""
    toplines = {
        name: point.topline for part in REFERENCE_POINTS.values() for name, point in part.items()
    }
    rows = []
    for task in (PROTOCOL[name] for name in REFERENCE_POINTS):
        for metric in task.metrics:
            short = {"slot_f1": "sf_f1", "slot_cer": "sf_cer"}.get(metric, task.name)
            unit = METRICS[metric].unit
            value = toplines[short] if metric != "cer" else 1.0
            rows.append(
                score(
                    upstream, upstream, value, task=task.name, metric=metric, unit=unit,
                    official=str(task.name != "qbe"), parameters=23_600_000,
                    unconfirmed="" if task.name != "qbe" else "never compared", **other,
                )
            )  # fmt: skip
    return rows


def test_table_1_has_every_published_row_of_the_class_and_ours() -> None:
    rows = table1(official_scores("ours"), PUBLISHED)
    (ours,) = (row for row in rows if row["origin"] == "this run")
    assert ours["superb_score"] == ours["superb_score_without_qbe"] == pytest.approx(1000)
    students = [row for row in PUBLISHED if row["hours"]]
    assert len(rows) == len(PUBLISHED) + 1 and len(students) == 20
    assert [row["model"] for row in rows[:2]] == ["HuBERT Base", "WavLM Base+"]
    assert rows[2] is ours
    for row in rows:
        assert row["superb_score"] == pytest.approx(superb_score({n: row[n] for n in SCORED}))
        assert row["source"] == "this run" or row["source"].startswith("arXiv:")
    large = [dict(PUBLISHED[2], million_parameters="40.0", model="too large")]
    assert "too large" not in {row["model"] for row in table1(official_scores("ours"), large)}
    head, *body = table1_cells(rows)
    assert head[3] == "PR ↓" and head[5] == "KS ↑" and len(body) == len(rows)
    page = html("Table 1", [head, *body], "a < b")
    assert page.count("<tr") == len(rows) + 1 and "a &lt; b" in page


@pytest.mark.parametrize(
    "other", [{"official": "False", "unconfirmed": ""}, {"synthetic": "True"}, {"kind": "teacher"}]
)
def test_other_scales_never_reach_table_1(other: dict[str, str]) -> None:
    with pytest.raises(SkillError, match="table1: no student has all ten tasks"):
        table1([row | other for row in official_scores("ours")], PUBLISHED)


def test_the_figure_of_published_models_has_this_runs_students_only(tmp_path: Path) -> None:
    kinds = {"ours": "student", "big": "teacher", "fbank": "fbank"}
    scores = [row for name, kind in kinds.items() for row in official_scores(name, kind=kind)]
    sources = [tmp_path / "scores.csv", ROOT / "data/published.csv"]
    write_csv(sources[0], scores, list(scores[0]))
    run("published", JOB, sources, tmp_path / "p.csv")
    ours = [row for row in read_csv(tmp_path / "p.csv") if row["origin"] == "this run"]
    assert [(row["model"], row["giga_macs"]) for row in ours] == [("ours", "5.0")]


def test_nine_tasks_are_not_ten() -> None:
    assert official(official_scores("ours"))
    assert not official([row for row in official_scores("ours") if row["task"] != "er"])


def test_sweeps_and_ablations_of_the_presets() -> None:
    paper = load(ROOT / "presets/paper.yaml")
    names = {student.base for student in paper.students.values()}
    found = sweeps(paper.students)
    assert found["skill-wavlm-s50"] == found["skill-wavlm-s90"] == "skill-wavlm"
    assert set(found) == {name for name in names if re.search(r"-s\d\d$", name)}
    varied = references(paper)
    assert varied["skill-wavlm-single"] == varied["skill-wavlm-clusters-k2"] == "skill-wavlm-s75"
    assert set(varied.values()) == {"skill-wavlm-s75"}
    assert not {"skill-both", "distilhubert", *found} & set(varied)
    some = load(ROOT / "presets/ablations.yaml")
    swept = sweeps(some.students)
    for method in ("skill", "dphubert"):
        members = {name for name, root in swept.items() if root == f"{method}-wavlm"}
        assert members == {f"{method}-wavlm", f"{method}-s90"}
    assert references(some) == {
        "ekd-mean": "ekd-both",
        **dict.fromkeys(["skill-single", "skill-each"], "skill-wavlm"),
        **dict.fromkeys(["skill-clusters-k2", "skill-clusters-k6"], "skill-wavlm"),
    }
    for name in ("params.yaml", "presets/study.yaml"):
        plain = load(ROOT / name)
        assert not sweeps(plain.students) and not references(plain)


def test_ablations_train_nothing_that_the_study_has() -> None:
    """In one folder, jobs of the same parameters are done."""
    study, some = (load(ROOT / f"presets/{name}.yaml") for name in ("study", "ablations"))
    shared = study.students.keys() & some.students.keys()
    assert shared == {"skill-wavlm-seed1", "dphubert-wavlm-seed1", "ekd-both-seed1"}
    assert all(study.students[name] == some.students[name] for name in shared)
    assert some.superb.tasks.items() <= study.superb.tasks.items()
    sample = load(ROOT / "params.yaml").superb.tasks  # with fewer seeds of heads
    more = {"head_seeds": 3}
    assert some.superb.tasks == {
        name: task | (more if "head_seeds" in task else {}) for name, task in sample.items()
    }
    for section in ("seed", "unlabelled", "teachers", "pretraining", "activations"):
        assert getattr(study, section) == getattr(some, section)


def test_everyone_is_compared_with_the_baseline_of_its_kind() -> None:
    assert baselines(load(ROOT / "params.yaml")) == {"skill-wavlm": "dphubert-wavlm"}
    methods = ["skill-wavlm", "distilhubert-wavlm", "ekd-both", "skill-both"]
    assert baselines(load(ROOT / "presets/study.yaml")) == dict.fromkeys(methods, "dphubert-wavlm")
    assert baselines(load(ROOT / "presets/ablations.yaml")) == {
        "skill-wavlm": "dphubert-wavlm", "skill-hubert": "dphubert-hubert",
        "skill-s90": "dphubert-s90", "ekd-both": "dphubert-wavlm",
    }  # fmt: skip
    large = baselines(load(ROOT / "presets/paper.yaml"))
    assert large["skill-both"] == "dphubert-wavlm-s75"
    assert large["skill-hubert-s90"] == "dphubert-hubert-s90"
    assert large["distilhubert"] == "dphubert-hubert-s75"
