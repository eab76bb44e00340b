"""The verdict on a run's table: bands from runs, planted faults, parameters of another run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

from skill.paper import verdict
from skill.utils.errors import SkillError
from skill.utils.files import read_csv, write_csv

UPSTREAMS = {"teacher": 60.0, "a": 65.0, "b": 66.0, "fbank": 88.0}
PARAMS = "seed: 1\nstage1: {steps: 600, precision: bf16}\nstudents: {a: {seeds: [1, 2]}}\n"


def rows(
    shift: float = 0.0, noise: float = 0.0, seed: int = 0, **other: Any
) -> list[dict[str, Any]]:
    generator = np.random.default_rng(seed)
    return [
        {
            "upstream": name, "task": task, "metric": metric,
            "value": value + shift + noise * generator.normal(), "items": 400, "head_seeds": 1,
            "head_deviation": "", **other,
        }
        for task, metric in (("pr", "per"), ("ks", "accuracy")) for name, value in UPSTREAMS.items()
    ]  # fmt: skip


def run_folder(folder: Path, table: list[dict[str, Any]]) -> Path:
    write_csv(folder / verdict.RESULTS, table, list(table[0]))
    (folder / "params.yaml").write_text(PARAMS)
    return folder


@pytest.fixture
def expected(tmp_path: Path) -> Path:
    """Expected values from four runs whose values differ by 0.5."""
    runs = [run_folder(tmp_path / f"run{n}", rows(noise=0.5, seed=n)) for n in range(4)]
    output = tmp_path / "expected/sample.csv"
    verdict.write_expected(runs, runs[0] / "params.yaml", output)
    return output


def judge(folder: Path, expected: Path) -> None:
    verdict.run(folder / "params.yaml", folder / verdict.RESULTS, expected.parent)


def test_a_band_is_a_prediction_interval_of_runs(expected: Path, tmp_path: Path) -> None:
    table = read_csv(expected)
    runs = [read_csv(tmp_path / f"run{n}" / verdict.RESULTS) for n in range(4)]
    values = np.array([[float(row["value"]) for row in run] for run in runs])[:, :4]  # pr
    variance = values.var(axis=0, ddof=1).mean()
    half = student.ppf(1 - 0.01 / 8 / 2, 4 * 3) * (variance * 5 / 4) ** 0.5
    for column, row in enumerate(table[:4]):
        assert float(row["band"]) == pytest.approx(half, abs=2e-4)
        assert float(row["value"]) == pytest.approx(values[:, column].mean(), rel=1e-5)
    assert {row["runs"] for row in table} == {"4"}


def test_bands_know_the_seeds_of_heads_and_single_items() -> None:
    """Runs that agree to the digit: heads still say how far another run may be."""
    heads = {"head_seeds": 2, "head_deviation": 1.5}
    (band,) = {row["band"] for row in verdict.expected_rows([rows(**heads)] * 2)}
    expected = student.ppf(1 - 0.01 / 8 / 2, 8) * (1.5**2 / 2 * 1.5) ** 0.5
    assert band == pytest.approx(expected, abs=2e-4)
    assert {row["band"] for row in verdict.expected_rows([rows()] * 2)} == {100 / 400}


def test_a_sound_run_passes_and_false_alarms_are_rare(
    expected: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge(run_folder(tmp_path / "here", rows(noise=0.5, seed=9)), expected)
    printed = capsys.readouterr().out
    assert printed.count("✓") == 9 and "✗" not in printed
    assert "all 8 values are within the bands" in printed
    table, alarms = read_csv(expected), 0
    for seed in range(200):
        found = [{k: str(v) for k, v in row.items()} for row in rows(noise=0.5, seed=100 + seed)]
        alarms += not all(row["inside"] for row in verdict.compared(found, table))
    assert alarms <= 10


@pytest.mark.parametrize("fault", ["one value", "all a little", "not a number", "a row is gone"])
def test_planted_faults_are_noticed(
    fault: str, expected: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = rows(noise=0.5, seed=9)
    if fault == "one value":
        table[0]["value"] = 90.4
    elif fault == "all a little":
        table = rows(shift=4.0)
    elif fault == "not a number":
        table[0]["value"] = float("nan")
    else:
        del table[0]
    with pytest.raises(SkillError, match=r"values are outside their bands \(PR per of teacher is"):
        judge(run_folder(tmp_path / "here", table), expected)
    assert "✗" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "keys"),
    [
        ("steps: 600", "steps: 601", "differ in stage1.steps\n"),
        ("seed: 1", "seed: true", "differ in seed\n"),
        ("seeds: [1, 2]", "seeds: [2, 1]", "differ in students.a.seeds\n"),
        ("seed: 1\n", "", "differ in seed\n"),
        ("stage1:", "stage3: 1\nstage1:", "differ in stage3\n"),
    ],
)
def test_other_parameters_have_no_verdict(
    old: str, new: str, keys: str, expected: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = run_folder(tmp_path / "here", rows(shift=50.0))
    (folder / "params.yaml").write_text(PARAMS.replace(old, new))
    judge(folder, expected)
    printed = capsys.readouterr().out
    assert printed.startswith("no verdict: ") and printed.endswith(keys)


def test_comments_and_layout_are_no_other_parameters(expected: Path, tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "here", rows(shift=50.0))
    text = "# mine\nstudents:\n  a: {seeds: [1, 2]}\nseed: 1\nstage1:\n"
    (folder / "params.yaml").write_text(text + "  precision: bf16\n  steps: 600\n")
    with pytest.raises(SkillError, match="8 of 8 values"):
        judge(folder, expected)


def test_what_cannot_be_compared_is_refused(
    expected: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(tmp_path / "here", rows())
    verdict.run(folder / "params.yaml", folder / verdict.RESULTS, tmp_path / "none")
    assert "no expected results" in capsys.readouterr().out
    with pytest.raises(SkillError, match="give at least two"):
        verdict.write_expected([folder], folder / "params.yaml", expected)
    other = run_folder(tmp_path / "other", rows()[1:])
    with pytest.raises(SkillError, match="not of the same upstreams and tasks"):
        verdict.write_expected([folder, other], folder / "params.yaml", expected)
    with pytest.raises(SkillError, match=r"results\.csv"):
        verdict.run(folder / "params.yaml", tmp_path / "results.csv", expected.parent)
    text = expected.read_text().splitlines()
    expected.write_text("\n".join([text[0], "pr,per,a,nan,1,4"]))
    with pytest.raises(SkillError, match="the expected table says nan ± 1"):
        judge(folder, expected)
