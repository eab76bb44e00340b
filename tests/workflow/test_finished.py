"""Finished work that nobody recorded is taken over, other work never."""

import json
import os
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from skill.workflow import finished, locks

ROOT = Path(__file__).parents[2]
OUTPUT = Path("results/stage1/s.safetensors")
SCRATCH = Path("scratch/stage1/s")


@pytest.fixture(autouse=True)
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job has written its outputs; then Snakemake, which had died, removes them."""
    monkeypatch.chdir(tmp_path)
    OUTPUT.parent.mkdir(parents=True)
    OUTPUT.write_bytes(b"weights")
    OUTPUT.with_suffix(".json").write_text("{}")
    finished.keep(SCRATCH, OUTPUT, "this job")
    for path in OUTPUT.parent.iterdir():
        path.unlink()


def record(later: float) -> None:
    """Snakemake's record of the output, so many seconds after the job's end."""
    path = Path(".snakemake/metadata") / urlsafe_b64encode(str(OUTPUT).encode()).decode()
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    when = time.time() + later
    os.utime(path, (when, when))


def test_unrecorded_work_comes_back() -> None:
    record(-60)  # of an earlier run
    assert finished.take_over(SCRATCH, OUTPUT, "this job")
    assert OUTPUT.read_bytes() == b"weights"
    assert OUTPUT.with_suffix(".json").read_text() == "{}"


def test_recorded_work_is_done_again_when_it_is_asked_for() -> None:
    record(60)
    assert not finished.take_over(SCRATCH, OUTPUT, "this job")
    assert not OUTPUT.exists() and not list((SCRATCH / "finished").iterdir())


def test_other_parameters_inputs_or_code_are_another_job(tmp_path: Path) -> None:
    assert not finished.take_over(SCRATCH, OUTPUT, "another job")
    teacher = tmp_path / "t"
    teacher.write_text("1")
    options = {"job": "{}", "teachers": [teacher], "output": OUTPUT}
    one = finished.identity("skill.utils.files", options)
    assert finished.identity("skill.utils.files", options | {"output": Path("x")}) == one
    assert finished.identity("skill.utils.files", options | {"job": "{1}"}) != one
    assert finished.identity("skill.utils.bootstrap", options) != one
    teacher.write_text("2")
    assert finished.identity("skill.utils.files", options) != one


def test_a_job_of_a_run_keeps_its_work_and_takes_it_over(tmp_path: Path) -> None:
    """The real command, twice: the second time nothing is trained."""
    job = {"seed": 0, "task": {"name": "x"}}
    command = [sys.executable, "-m", "skill", "evaluate", "u", "sid", "--params", json.dumps(job)]
    command += ["--manifests", "m.csv", "--output", "results/superb/u/sid.json"]
    command += ["--scratch", "scratch/superb/u/sid"]
    options = {
        "upstream": "u", "task": "sid", "job": json.dumps(job), "manifests": [Path("m.csv")],
        "encoder": None,
    }  # fmt: skip
    output, scratch = Path("results/superb/u/sid.json"), Path("scratch/superb/u/sid")
    output.parent.mkdir(parents=True)
    output.write_text("result")
    Path("m.csv").touch()
    finished.keep(scratch, output, finished.identity("skill.superb.evaluate", options))
    output.unlink()
    import psutil

    run = f"{os.getpid()} {psutil.Process().create_time():.2f}"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), locks.RUN: run}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "was finished by a run that ended" in done.stderr
    assert output.read_text() == "result"
