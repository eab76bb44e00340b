"""Finished work that nobody recorded is taken over, other work never."""

import json
import os
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from pathlib import Path

import psutil
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


COMMANDS = {
    "evaluate": (
        ["u", "sid"],
        {"upstream": "u", "task": "sid", "encoder": None},
        "superb.evaluate",
    ),
    "pretrain": (["t"], {"name": "t"}, "teachers.pretraining"),
    "stage1": (
        ["s", "--teachers", "t.safetensors"],
        {"name": "s", "teachers": [Path("t.safetensors")], "clustering": None},
        "distillation.stages",
    ),
}


@pytest.mark.parametrize("verb", COMMANDS)
def test_long_jobs_of_a_run_take_their_work_over(verb: str) -> None:
    """The real command, after the same job has ended unrecorded: nothing is trained."""
    words, options, module = COMMANDS[verb]
    job = json.dumps({"seed": 0})
    output, scratch = Path("results/o.json"), Path("scratch/o")
    command = [sys.executable, "-m", "skill", verb, *words, "--params", job]
    command += ["--manifests", "m.csv", "--output", str(output), "--scratch", str(scratch)]
    for name in ("m.csv", "t.safetensors"):
        Path(name).touch()
    output.write_text("result")
    options = options | {"job": job, "manifests": [Path("m.csv")]}
    finished.keep(scratch, output, finished.identity(f"skill.{module}", options))
    output.unlink()
    run = f"{os.getpid()} {psutil.Process().create_time():.2f}"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), locks.RUN: run}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "was finished by a run that ended" in done.stderr
    assert output.read_text() == "result"


NOTES = ["", "[]", "{", '{"job": "this job"}', '{"job": "this job", "files": 3}', "[" * 100_000,
         '{"job": "this job", "files": ["../../../victim"]}', '{"job": [], "files": ["a"]}',
         '{"job": "this job", "files": [".."]}']  # fmt: skip


@pytest.mark.parametrize("note", NOTES, ids=range(len(NOTES)))
def test_a_note_of_other_content_is_no_finished_job(note: str) -> None:
    Path("victim").write_text("precious")
    (SCRATCH / "finished/finished").write_text(note)
    assert not finished.take_over(SCRATCH, OUTPUT, "this job")
    assert not OUTPUT.exists() and Path("victim").read_text() == "precious"
