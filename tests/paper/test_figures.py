"""Pictures: drawn from tables of both scales, the same bytes twice, and readable in grey."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image

from skill.config.jobs import PaperJob, Upstream
from skill.paper import figure_data
from skill.paper.figures import draw, training
from skill.paper.figures.results import _apart
from skill.paper.figures.style import COLOURS, DASHES, INK, MARKERS, look
from skill.paper.tables import run
from skill.utils.errors import SkillError
from skill.utils.files import read_csv, write_csv, write_json

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(1)
SPARSITIES = (0.5, 0.75, 0.9)
STUDENTS = {
    f"{method}-s{100 * s:g}": Upstream(
        kind="student", method=method, base=f"{method}-s{100 * s:g}", teachers=("wavlm",),
        sparsity=s, seed=1,
    )
    for method in ("skill", "dphubert")
    for s in SPARSITIES
}  # fmt: skip
VARIED = {
    name: Upstream(
        kind="student", method="skill", base=name, teachers=("wavlm",), sparsity=0.75, seed=1
    )
    for name in ("skill-single", "skill-each", "skill-k2")
}
JOB = PaperJob(
    upstreams=STUDENTS | VARIED | {"wavlm": Upstream(kind="teacher", base="wavlm")},
    bootstrap=10,
    sweeps={name: name.partition("-")[0] for name in STUDENTS},
    references=dict.fromkeys(VARIED, "skill-s75"),
    baselines=dict.fromkeys(VARIED, "skill-s75"),
)
TASKS = {"pr": "per", "asr": "wer", "ks": "accuracy", "sid": "accuracy", "asv": "eer"}


def scores() -> list[dict[str, Any]]:
    rows = []
    for index, (name, about) in enumerate(JOB.upstreams.items()):
        size = 4e6 * (1 - (about.sparsity or 0))
        for task, metric in TASKS.items():
            bad = 12 + 20 * (about.sparsity or 0) + index
            value = bad if metric != "accuracy" else 100 - bad
            rows.append(
                {
                    "upstream": name, "base": about.base, "kind": about.kind, "task": task,
                    "method": about.method, "teachers": "+".join(about.teachers),
                    "sparsity": about.sparsity or "", "seed": 1, "parameters": round(size),
                    "macs": 4e11 * (1 - 0.8 * (about.sparsity or 0)), "metric": metric,
                    "real_time_factor": 0.01 * (1.1 - (about.sparsity or 0)), "value": value,
                    "low": value - 2, "high": value + 1.5, "items": 100, "unit": "%",
                    "clusters": 20, "error": 0.8, "head_seeds": 1, "head_deviation": "",
                    "low_is_good": metric != "accuracy", "official": False, "synthetic": False,
                }
            )  # fmt: skip
    return rows


def table_of_scores(folder: Path) -> list[Path]:
    rows = scores()
    write_csv(folder / "scores.csv", rows, list(rows[0]))
    return [folder / "scores.csv"]


def of_published(folder: Path) -> list[Path]:
    return [*table_of_scores(folder), ROOT / "data/published.csv"]


def of_comparisons(folder: Path) -> list[Path]:
    rows = []
    for number, name in enumerate(VARIED):
        for task, metric in TASKS.items():
            if metric == "eer":
                continue
            difference = 2.0 - 1.7 * number + RNG.normal() / 3
            rows.append(
                {
                    "task": task, "metric": metric, "first": name, "second": "skill-s75",
                    "difference": difference, "low": difference - 1, "high": difference + 1,
                    "p_value": 0.1, "seeds": 3, "head_seeds": 1, "clusters": 9,
                    "synthetic": task == "ks",
                }
            )  # fmt: skip
    write_csv(folder / "comparisons.csv", rows, list(rows[0]))
    return [folder / "comparisons.csv"]


def of_curves(folder: Path) -> list[Path]:
    files = []
    for stage in ("stage1", "stage2"):
        for number, name in enumerate(STUDENTS):
            steps = np.arange(10, 310, 10)
            rows = [
                {
                    "step": int(step), "distillation": 1 / (1 + step / 50) + 0.03 * number,
                    "sparsity": min(0.75, step / 200) if stage == "stage1" else "",
                    "target_sparsity": min(0.75, step / 100) if stage == "stage1" else "",
                    "lambda1": -step / 300 * (1 + number) if stage == "stage1" else "",
                    "lambda2": step / 200 if stage == "stage1" else "",
                }
                for step in steps
            ]  # fmt: skip
            files.append(folder / stage / f"{name}.csv")
            write_csv(files[-1], rows, list(rows[0]))
    return files


def of_regression(folder: Path) -> list[Path]:
    files = []
    for name, about in STUDENTS.items():
        picked = (4, 8, 12) if about.method == "dphubert" else range(13)
        rows = []
        for layer in range(13):
            assert about.sparsity is not None
            error = 0.1 + about.sparsity / 3 + 0.01 * layer - 0.05 * (layer in picked)
            rows.append(
                {
                    "student": name, "teacher": "wavlm", "layer": layer, "error": error,
                    "low": error - 0.02, "high": error + 0.01, "state": layer,
                    "target": 1 if layer in picked else "",
                }
            )  # fmt: skip
        files.append(folder / f"{name}.csv")
        write_csv(files[-1], rows, list(rows[0]))
    return files


def of_probes(folder: Path) -> list[Path]:
    files = []
    for number, name in enumerate(JOB.upstreams):
        for task in ("phones", "abx"):
            values = [30 + number + 2 * state for state in range(5)]
            layers = [{"state": s, "dev": v - 1, "test": v} for s, v in enumerate(values)]
            files.append(folder / name / f"{task}.json")
            write_json(files[-1], {"upstream": name, "task": task, "layers": layers})
    return files


def layers_table(table: Path) -> None:
    rows = []
    for student in ("skill-wavlm", "dphubert-wavlm", "skill-both"):
        for unit, count, of in (("conv", 7, 512), ("head", 12, 12), ("ffn", 12, 3072)):
            for layer in range(1, count + 1):
                left = int(RNG.integers(0, of + 1))
                rows.append(
                    {
                        "student": student, "unit": unit, "layer": layer, "left": left, "of": of,
                        "parameters": 100 * left,
                    }
                )  # fmt: skip
    write_csv(table, rows, figure_data.LAYERS)


INPUTS: dict[str, Callable[[Path], list[Path]]] = {
    "size": table_of_scores,
    "sparsity": table_of_scores,
    "ablation": of_comparisons,
    "methods": of_comparisons,
    "published": of_published,
    "curves": of_curves,
    "regression": of_regression,
    "probes": of_probes,
}


def tabulated(name: str, folder: Path) -> Path:
    table = folder / f"{name}.csv"
    if name == "layers":
        layers_table(table)
    else:
        run(name, JOB, INPUTS[name](folder / "inputs"), table)
    return table


@pytest.mark.parametrize("name", [*INPUTS, "layers"])
def test_pictures_are_the_same_twice(name: str, tmp_path: Path) -> None:
    table = tabulated(name, tmp_path)
    for folder in ("one", "two"):
        draw(name, table, tmp_path / folder / "a.pdf", tmp_path / folder / "a.png")
    for kind in ("a.pdf", "a.png"):
        first, second = ((tmp_path / folder / kind).read_bytes() for folder in ("one", "two"))
        assert first == second
    pixels = image.imread(tmp_path / "one/a.png")
    assert pixels.shape[1] >= 600
    assert (pixels[..., :3].min(axis=2) < 0.3).mean() > 0.003  # ink


@pytest.mark.parametrize("name", [*INPUTS, "layers"])
def test_nothing_to_draw_is_an_error(name: str, tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [], ["student"])
    with pytest.raises(SkillError, match="no rows to draw"):
        draw(name, tmp_path / "a.csv", tmp_path / "a.pdf", tmp_path / "a.png")


def test_ablations_gain_what_is_better(tmp_path: Path) -> None:
    rows = read_csv(tabulated("ablation", tmp_path))
    raw = {(r["first"], r["task"]): r for r in read_csv(tmp_path / "inputs/comparisons.csv")}
    for row in rows:
        found = raw[row["student"], row["task"]]
        sign = 1 if row["metric"] == "accuracy" else -1
        assert float(row["gain"]) == pytest.approx(sign * float(found["difference"]), rel=1e-5)
        assert float(row["low"]) < float(row["gain"]) < float(row["high"])
        assert row["reference"] == "skill-s75"
    assert len(rows) == len(raw)


def test_probes_average_seeds(tmp_path: Path) -> None:
    seeds = {f"skill-{seed}": Upstream(kind="student", base="skill", seed=seed) for seed in (1, 2)}
    files = []
    for value, name in zip((40.0, 43.0), seeds, strict=True):
        files.append(tmp_path / f"{name}.json")
        layers = [{"state": 0, "dev": 0.0, "test": value}]
        write_json(files[-1], {"upstream": name, "task": "phones", "layers": layers})
    (row,) = figure_data.probes(files, PaperJob(upstreams=seeds, bootstrap=10))
    assert (row["upstream"], row["state"], row["of"], row["value"]) == ("skill", 0, 0, 41.5)


def test_every_target_sparsity_has_a_line_of_its_own(tmp_path: Path) -> None:
    rows = [
        {"student": name, "base": name, "stage": "stage1", "step": step, "distillation": 0.5,
         "sparsity": 0.1, "target_sparsity": target * step / 20, "lambda1": 0.0, "lambda2": 0.0}
        for name, target in (("half", 0.5), ("alike", 0.5), ("most", 0.9))
        for step in (10, 20)
    ]  # fmt: skip
    write_csv(tmp_path / "curves.csv", rows, list(rows[0]))
    panel = training.curves(tmp_path / "curves.csv").axes[2]
    targets = [line.get_ydata() for line in panel.lines if line.get_color() == INK]
    assert [list(target) for target in targets] == [[0.25, 0.5], [0.45, 0.9]]


def test_gains_are_over_the_reference_whoever_stands_first(tmp_path: Path) -> None:
    pairs = [("a", "b", 3.0), ("c", "a", 1.0), ("b", "c", 99.0)]
    rows = [
        {"task": "ks", "metric": "accuracy", "first": first, "second": second, "seeds": 2,
         "clusters": 9, "synthetic": "", "difference": d, "low": d - 1, "high": d + 2,
         "p_value": 0.5, "head_seeds": 2}
        for first, second, d in pairs
    ]  # fmt: skip
    write_csv(tmp_path / "c.csv", rows, list(rows[0]))
    first, second = figure_data.gains(tmp_path / "c.csv", {"c": "a", "b": "a"})
    assert (first["student"], first["gain"], first["low"], first["high"]) == ("c", 1.0, 0.0, 3.0)
    assert (second["student"], second["gain"]) == ("b", -3.0)
    assert (second["low"], second["high"], second["seeds"]) == (-5.0, -2.0, "2")


def test_sweeps_have_their_teacher_at_zero(tmp_path: Path) -> None:
    rows = read_csv(tabulated("sparsity", tmp_path))
    assert {r["series"] for r in rows if r["kind"] == "teacher"} == {"wavlm"}
    assert {r["sparsity"] for r in rows if r["kind"] == "teacher"} == {"0"}
    some = [float(r["sparsity"]) for r in rows if (r["series"], r["task"]) == ("skill", "pr")]
    assert some == list(SPARSITIES)
    assert not {r["series"] for r in rows} & set(VARIED)


def test_published_points_are_apart_from_other_scales(tmp_path: Path) -> None:
    rows = read_csv(tabulated("published", tmp_path))
    assert {row["origin"] for row in rows} == {"published"}
    assert all(row["source"].startswith("arXiv:") for row in rows)
    values = [float(row["score"]) for row in rows]
    assert values == sorted(values, reverse=True)


def test_looks_differ_in_more_than_colour() -> None:
    looks = [look(index) for index in range(49)]
    assert len({(o["color"], o["marker"], str(o["linestyle"])) for o in looks}) == 49
    assert len(set(COLOURS)) == len(set(MARKERS)) == len(set(map(str, DASHES))) == 7
    for first, second in pairwise(looks[:8]):
        assert first["marker"] != second["marker"] and first["color"] != second["color"]
    shades = [sum(w * int(c[i : i + 2], 16) for w, i in ((0.3, 1), (0.59, 3), (0.11, 5)))
              for c in COLOURS[:2]]  # fmt: skip
    assert abs(shades[0] - shades[1]) > 20  # the first two tell apart in grey


def test_points_of_one_cost_stand_side_by_side() -> None:
    assert _apart([1.0, 4.0, 1.0, 1.03], 0.1) == pytest.approx([0.91, 4.0, 1.01, 1.11])
    assert _apart([2.0, 1.0], 0.1) == [2.0, 1.0]
