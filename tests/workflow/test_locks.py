"""Stale locks go, held ones stay; jobs end with the run that started them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import wait_for
from filelock import FileLock

from skill.utils.errors import SkillError
from skill.utils.files import write_json
from skill.workflow import locks

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src")}


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / ".snakemake/locks"
    folder.mkdir(parents=True)
    (folder / "0.input.lock").write_text("x\n")
    return folder


def note(name: str) -> Path:
    path = Path(f".snakemake/runs/{name}.json")
    write_json(path, {"host": "elsewhere", "pid": 7, "since": "2026-01-01 00:00"})
    return path


class Run:
    """A process that has registered itself as a run of the working directory."""

    def __init__(self, **environment: str) -> None:
        code = (
            "from skill.workflow import locks; locks.register_run(); print(1, flush=True); input()"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], env=ENVIRONMENT | environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout is not None and self.process.stdout.readline() == "1\n"


def test_lock_of_a_killed_run_is_removed_and_its_note_forgotten(locked: Path) -> None:
    (locked / "0.input.lock").rename(locked / "0")
    run = Run()
    (locked / "0").rename(locked / "0.input.lock")
    assert not locks.release_stale_lock()
    run.process.kill()
    run.process.wait()
    assert list(Path(".snakemake/runs").iterdir())
    assert locks.release_stale_lock()
    assert not list(locked.iterdir()) and not list(Path(".snakemake/runs").iterdir())
    assert not locks.release_stale_lock()


def test_a_run_removes_its_note_at_its_end(locked: Path) -> None:
    run = Run()
    run.process.communicate("\n")
    assert not list(Path(".snakemake/runs").iterdir())


def test_lock_of_a_live_run_stays_on_whichever_machine(locked: Path) -> None:
    dead, live = note("a-1"), note("b-2")
    with FileLock(live.with_suffix(".lock")):
        assert not locks.release_stale_lock()
        assert list(locked.iterdir()) and live.exists() and not dead.exists()
        assert locks._live() == ["process 7 on elsewhere since 2026-01-01 00:00"]
    assert locks.release_stale_lock()


def test_lock_without_a_note_stays(locked: Path) -> None:
    """Nobody can know whose it is."""
    assert not locks.release_stale_lock()
    assert list(locked.iterdir())


JOB = """
import sys, time
from skill.workflow import locks
locks.exit_with_parent()
print("watches", flush=True)
time.sleep(600)
"""


def job(run: int, started: float) -> "subprocess.Popen[bytes]":
    environment = ENVIRONMENT | {locks.RUN: f"{run} {started:.2f}"}
    return subprocess.Popen(
        [sys.executable, "-c", JOB], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_job_ends_with_its_run() -> None:
    run = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = psutil.Process(run.pid).create_time()
    watching = job(run.pid, started)
    assert watching.stdout is not None and watching.stdout.readline() == b"watches\n"
    time.sleep(1.5)
    assert watching.poll() is None
    run.kill()
    run.wait()
    assert watching.wait(timeout=60) == -15
    late = job(run.pid, started)
    said = late.communicate(timeout=60)
    assert late.returncode == 143 and not said[0]
    assert (
        said[1].decode().strip() == f"the run of process {run.pid} has ended, and this job with it"
    )


def test_a_run_ends_with_the_dvc_that_started_it(locked: Path, tmp_path: Path) -> None:
    run = "from skill.workflow import locks; locks.register_run(); print(1, flush=True); "
    program = tmp_path / "dvc"
    program.write_text(
        "import subprocess, sys\n"
        f"run = [sys.executable, '-c', {run + 'import time; time.sleep(600)'!r}]\n"
        "print(subprocess.Popen(run).pid, flush=True)\n"
        "import time; time.sleep(600)\n"
    )
    dvc = subprocess.Popen(
        [sys.executable, str(program)], env=ENVIRONMENT | {"DVC_STAGE": "stage1"}, text=True,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert dvc.stdout is not None
    said = {dvc.stdout.readline().strip() for _ in range(2)}
    assert "1" in said  # it watches
    (pid,) = (int(word) for word in said - {"1"})
    dvc.kill()
    dvc.wait()
    wait_for(lambda: not psutil.pid_exists(pid), 60)


def test_number_of_a_dead_run_that_was_given_again() -> None:
    """The same process number with another start time is another process."""
    late = job(os.getpid(), psutil.Process().create_time() - 60)
    assert late.wait(timeout=60) == 143


def test_a_scratch_folder_belongs_to_one_job(tmp_path: Path) -> None:
    with locks.scratch_of_one_job(tmp_path / "s"):
        pass
    with (
        FileLock(tmp_path / "s/.lock"),
        pytest.raises(SkillError, match="another job works"),
        locks.scratch_of_one_job(tmp_path / "s", seconds=0.2),
    ):
        raise AssertionError


def test_a_checkout_that_pythonpath_cannot_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SkillError, match="move the checkout"):
        locks.prepare(tmp_path / "a:b", here=True)
