"""Stale locks go, held ones stay; jobs end with the run that started them; verbs' exit codes."""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from skill.__main__ import main
from skill.command import VERBS, parser
from skill.utils.files import write_json
from skill.workflow import locks


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    locks = tmp_path / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.input.lock").write_text("x\n")
    return locks


def note(pid: int, started: str | None, host: str = platform.node()) -> Path:
    path = Path(f".snakemake/runs/{pid}.json")
    write_json(path, {"host": host, "started": started})
    return path


def ended_process() -> tuple[int, str | None]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    born = locks.started(process.pid)
    process.kill()
    process.wait()
    return process.pid, born


def test_lock_of_a_dead_run_is_removed_and_its_note_forgotten(locked: Path) -> None:
    path = note(*ended_process())
    assert locks.release_stale_lock()
    assert not list(locked.iterdir()) and not path.exists()
    assert not locks.release_stale_lock()


def test_lock_of_a_live_run_stays(locked: Path) -> None:
    path = note(*ended_process())
    lock = next(locked.iterdir())
    lock.rename(locked / "kept")  # no lock yet: the run notes itself first
    locks.hold()
    (locked / "kept").rename(lock)
    assert [p.stem for p in Path(".snakemake/runs").iterdir()] == [str(os.getpid())]
    assert not locks.release_stale_lock()
    assert lock.exists() and not path.exists()


def test_lock_of_a_run_that_was_killed_before_any_job_is_removed(locked: Path) -> None:
    """The note is older than the lock: a run notes itself while it reads the Snakefile."""
    path = note(*ended_process())
    earlier = path.stat().st_mtime - 60
    os.utime(path, (earlier, earlier))
    assert locks.release_stale_lock()


def test_lock_of_another_machine_or_unknown_run_stays(locked: Path) -> None:
    assert not locks.release_stale_lock()
    note(*ended_process(), host="elsewhere")
    assert not locks.release_stale_lock()
    note(*ended_process())  # a dead one beside it
    assert not locks.release_stale_lock()
    assert list(locked.iterdir())


def test_number_of_a_dead_run_that_was_given_again(locked: Path) -> None:
    """The same process number with another start time is another process."""
    note(os.getpid(), "1")
    assert locks.release_stale_lock()


def test_job_ends_with_its_run() -> None:
    run = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    code = f"import time; from skill import runner; runner.end_with({run.pid}, 0.05); "
    job = subprocess.Popen(
        [sys.executable, "-c", code + "print('watches', flush=True); time.sleep(600)"],
        stdout=subprocess.PIPE,
    )
    assert job.stdout is not None and job.stdout.readline() == b"watches\n"
    time.sleep(0.5)
    assert job.poll() is None
    run.kill()
    run.wait()
    assert job.wait(timeout=60) == -15


def test_bad_input_is_one_line_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(tmp_path / "none.yaml")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert main(["teacher", "x", "--params", "{", "--output", str(tmp_path / "x")]) == 1
    assert capsys.readouterr().err.startswith("error: --params: no valid JSON")
    job = '{"source":"a","oops":1}'
    assert main(["teacher", "x", "--params", job, "--output", str(tmp_path / "x")]) == 1
    assert capsys.readouterr().err == "error: --params.oops: unknown key\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parser().parse_args([verb, "--help"])
    assert left.value.code == 0
    assert "--threads" in capsys.readouterr().out
