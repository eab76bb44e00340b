"""The README says what the last run's files say."""

import csv
import importlib.util
import re
from pathlib import Path

import pytest
from conftest import Smoke

from skill.utils.files import write_csv

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("readme", ROOT / "tools/readme.py")
assert _spec is not None and _spec.loader is not None
readme = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(readme)


def test_the_table_is_the_one_of_the_files() -> None:
    front = (ROOT / "README.md").read_text(encoding="utf-8")
    compact = readme.compact_table(ROOT / "docs/sample")
    assert readme.with_table(front, compact) == front
    assert 4 < len(compact.splitlines()) <= 8 and "[" not in compact
    written = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    table = (ROOT / "docs/sample/results.md").read_text(encoding="utf-8")
    assert readme.with_table(written, table) == written
    floor = readme.floor_table(ROOT / "docs/sample")
    assert readme.with_table(written, floor, "floor") == written
    assert "| wavlm-sample |" in floor


def test_the_calibration_page_says_what_the_study_found() -> None:
    written = (ROOT / "docs/calibration.md").read_text(encoding="utf-8")
    with (ROOT / "docs/sample/skill-wavlm-calibration.csv").open(encoding="utf-8") as file:
        table = readme.calibration_table(list(csv.DictReader(file)))
    assert readme.with_table(written, table) == written
    assert "| linear | 80 |" in table and "average" in table


def test_the_page_of_benchmarks_is_what_they_printed() -> None:
    folder = ROOT / "docs/benchmarks"
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert page == readme.benchmarks_page(folder, ROOT / "benchmarks")
    assert all(f"## {name}\n" in page for name in ("encoder", "similarity", "training", "export"))


def test_a_presets_run_is_kept_with_its_command_tables_and_figures(
    smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    preset, kept = Path("presets/smoke.yaml"), tmp_path / "kept"
    (tmp_path / "none/results/paper").mkdir(parents=True)
    with pytest.raises(SystemExit, match=r"results\.csv: run presets/smoke\.yaml first"):
        readme.keep_preset(preset, tmp_path / "none", kept)
    (kept / "of-an-earlier-run.png").touch()
    readme.keep_preset(preset, smoke.project.folder, kept)
    page = (kept / "README.md").read_text(encoding="utf-8")
    assert (kept / "results.md").read_text(encoding="utf-8").strip() in page
    assert "presets/smoke.yaml --directory" in page and "torch 2." in page
    assert "has changed since" not in page
    links = set(re.findall(r"\]\(([^)]+)\)", page))
    assert links >= {"methods.png", "comparisons.csv"}
    assert links | {"README.md", "made.json", "results.md"} == {p.name for p in kept.iterdir()}
    (kept / "params.yaml").write_text("seed: 1\n", encoding="utf-8")
    assert "**presets/smoke.yaml has changed since this run**" in readme.preset_page(kept)


@pytest.mark.parametrize("name", ["study", "ablations"])
def test_a_presets_page_is_what_its_files_say(name: str) -> None:
    folder = ROOT / "docs" / name
    assert (folder / "README.md").read_text(encoding="utf-8") == readme.preset_page(folder)


def test_bold_is_what_the_paired_test_finds_better_than_log_mel_features(tmp_path: Path) -> None:
    results, tests = [], []
    for task, metric, low_is_good in (("pr", "per", True), ("sid", "accuracy", False)):
        about = {"task": task, "metric": metric, "low_is_good": str(low_is_good)}
        results.append(about | {"items": 5, "upstream": "good"})
        for name, gap in (("good", -5.0), ("even", 0.0)):
            row = {"first": name, "second": "fbank", "task": task, "metric": metric}
            tests.append(row | {"difference": gap, "low": gap - 2, "high": gap + 2})
            if name == "good":  # the other way around is the same
                tests[-1] |= {
                    "first": "fbank",
                    "second": name,
                    "difference": 5,
                    "low": 3,
                    "high": 7,
                }
        tests.append(tests[-1] | {"second": "good"})
    write_csv(tmp_path / "results.csv", results, list(results[0]))
    write_csv(tmp_path / "comparisons.csv", tests, list(tests[0]))
    assert readme.floor_table(tmp_path).splitlines() == [
        "| difference to FBANK (points) | PR per ↓, n = 5 | SID accuracy ↑, n = 5 |",
        "| --- | --- | --- |",
        "| good | **-5.0** [-7.0, -3.0] | -5.0 [-7.0, -3.0] |",
        "| even | +0.0 [-2.0, +2.0] | +0.0 [-2.0, +2.0] |",
    ]


@pytest.mark.parametrize("better", [True, False])
def test_triangles_point_where_the_test_is_sure(tmp_path: Path, better: bool) -> None:
    columns = {"task": "pr", "metric": "per", "low_is_good": "True", "synthetic": "False"}
    rows = [
        columns | {"upstream": name, "kind": "student", "seeds": "3", "parameters": "980000",
                   "unit": "%", "items": "9", "value": str(value), "deviation": "0.5"}
        for name, value in (("ours", 70), ("theirs", 80), ("alike", 79.9))
    ]  # fmt: skip
    write_csv(tmp_path / "results.csv", rows, list(rows[0]))
    sign = -1 if better else 1
    gaps = [("ours", "theirs", 10 * sign), ("theirs", "alike", 0.1)]
    tests = [
        {"task": "pr", "metric": "per", "first": a, "second": b, "low": gap - 1, "high": gap + 1}
        for a, b, gap in gaps
    ]
    write_csv(tmp_path / "comparisons.csv", tests, list(tests[0]))
    write_csv(tmp_path / "methods.csv", [{"student": "ours", "reference": "theirs"},
              {"student": "alike", "reference": "theirs"}], ["student", "reference"])  # fmt: skip
    head, _, ours, theirs, alike = readme.study_table(tmp_path).splitlines()
    assert "PR per ↓, n = 9" in head
    assert ("▲" in ours) is better and ("▼" in ours) is not better
    assert "80.0 ± 0.5 |" in theirs and "79.9 ± 0.5 |" in alike


def test_a_readme_without_marks_is_an_error() -> None:
    with pytest.raises(SystemExit, match="marks"):
        readme.with_table("no marks", "table")


def test_the_readme_is_short_shows_a_picture_first_and_its_links_exist() -> None:
    written = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(written.encode()) < 5000
    assert "![" in "\n".join(written.splitlines()[:15])
    for link in re.findall(r"\]\(([^)#]+)\)", written):
        if not link.startswith("http"):
            assert (ROOT / link).exists(), link


# What would take too long or needs corpora, and what stands for it at the smoke scale.
INSTEAD = {
    "make reproduce": "make -n reproduce",
    "make test": "make -n test",
    ". .venv/bin/activate": "true",
    "num_clusters=5": "num_clusters=3",
    "SKILL_CORPORA=/corpora snakemake --cores all --resources gpu=1 --config "
    "params=presets/paper.yaml": "snakemake -n --quiet rules --config params=presets/smoke.yaml",
}


def test_every_command_is_run(smoke: Smoke, tmp_path: Path) -> None:
    """Blocks and commands in the text, in their order, in a copy of the smoke run."""
    project = smoke.project.copy(tmp_path / "a clone")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    assert "torch.Size([2, " in project.run("python", "-c", example)
    tree = r"^    (?:params\.yaml  presets|Snakefile|src/skill/|data/|docs/|tests/|  ).*$"
    text = re.sub(tree, "", text, flags=re.M)
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    printed = {}
    for block, inline in re.findall(r"^    (\S.*)$|`((?:snakemake|dvc|skill) [^`]*)`", text, re.M):
        line = command = (block or inline).partition(" #")[0].strip()
        if "FILE" in line:
            continue
        for said, done in INSTEAD.items():
            command = command.replace(said, done)
        printed[line] = project.run("bash", "-o", "pipefail", "-ec", command)
    assert "prune_student" not in printed["dvc repro"]  # it records what is there
    assert "group_layers" in printed["dvc exp run -S clustering.num_clusters=5"]
    assert (project.folder / "DIR/config.json").exists()
    assert "stage1" in printed["skill plan presets/paper.yaml"]
