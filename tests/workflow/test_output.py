"""What a run prints: one line for each job that ends, fails or stops, and how far the run is."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from snakemake_logger_plugin_skill import Progress

ROOT = Path(__file__).parents[2]
RULES = """
rule all:
    input: "results/stage1/a.txt", "results/stage1/b c.txt"
rule first:
    output: "results/stage1/a.txt"
    shell: "touch {output:q}"
rule second:
    input: "results/stage1/a.txt"
    output: "results/stage1/b c.txt"
    log: "logs/b.log"
    shell: "echo begun; sleep 30; touch {output:q} # " + 500 * "x"
"""
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(ROOT / "src"),
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}
ENVIRONMENT.pop("SKILL_OUTPUT", None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "Snakefile").write_text(RULES)
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    return tmp_path


def run(folder: Path, *options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["snakemake", "--cores", "1", *options], cwd=folder, env=ENVIRONMENT | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_jobs_that_end_and_fail_have_a_line_each(folder: Path) -> None:
    rules = (folder / "Snakefile").read_text()
    (folder / "Snakefile").write_text(rules.replace("sleep 30", "exit 3"))
    failed = run(folder)
    lines = failed.stderr.splitlines()[1:]  # the first says which profile is used
    assert failed.returncode == 1
    assert lines[0] == "3 jobs to do"
    assert lines[1].startswith("[1/3] stage1/a: done in 0 s, about ")
    assert lines[2:] == [
        "[1/3] stage1/b c: failed, see logs/b.log",
        "2 of 3 jobs are left; the same command goes on",
    ]
    (folder / "Snakefile").write_text(rules.replace("sleep 30", "true"))
    done = run(folder)
    *lines, last = done.stderr.splitlines()[1:]
    assert lines == ["2 jobs to do", "[1/2] stage1/b c: done in 0 s, about 0 s left"]
    assert last.startswith("[2/2] all: done in ")
    assert "Nothing to be done" in run(folder).stderr


def test_a_stopped_run_prints_no_command(folder: Path) -> None:
    process = subprocess.Popen(
        ["snakemake", "--cores", "1"], cwd=folder, env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode
    assert "stopping: jobs that can go on later save their state" in said
    assert "[1/3] stage1/b c: stopped, see logs/b.log" in said
    assert "xxx" not in said and "Traceback" not in said


def test_snakemakes_own_output_is_there_for_who_wants_it(folder: Path) -> None:
    assert "rule first:\n    output: results/stage1/a.txt" in run(folder, "-n").stdout
    own = run(folder, "results/stage1/a.txt", SKILL_OUTPUT="snakemake")
    assert "rule first:\n    output: results/stage1/a.txt" in own.stderr


def test_time_left_is_that_of_like_jobs() -> None:
    progress = Progress({"long": 3, "short": 2, "total": 5})
    assert progress.total == 5 and progress.seconds_left() == 0
    progress.finish("long", 100.0)
    progress.finish("short", 1.0)
    progress.began = time.monotonic() - 101  # one at a time
    assert progress.seconds_left() == pytest.approx(201, rel=0.01)
    progress.began = time.monotonic() - 50.5  # two at a time
    assert progress.seconds_left() == pytest.approx(100.5, rel=0.01)
