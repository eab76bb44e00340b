"""A run is killed at many moments, in many ways; what it makes in the end is the same.

`make test-kills` does it more often (SKILL_KILLS rounds).
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from conftest import wait_for

from skill.utils.files import sha256

ROOT = Path(__file__).parents[2]
TARGET = "results/stage2/s.safetensors"
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
}
# The signal, and whether all processes of the run get it or Snakemake alone.
KINDS = [
    (signal.SIGKILL, False), (signal.SIGKILL, True), (signal.SIGTERM, False),
    (signal.SIGINT, True), (signal.SIGHUP, True), (signal.SIGTERM, True),
]  # fmt: skip


def started(folder: Path) -> "subprocess.Popen[bytes]":
    command = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    command += ["--workflow-profile", str(ROOT / "profiles/default"), "--cores", "2", "--", TARGET]
    with (folder / "run.log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=folder, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True
        )


def project(folder: Path) -> Path:
    """One student of the smoke preset with stages of some seconds."""
    folder.mkdir()
    written = yaml.safe_load((ROOT / "presets/smoke.yaml").read_text())
    stage = {"steps": 20, "validate_every": 20, "log_every": 10}
    written |= {
        "stage1": written["stage1"] | stage,
        "stage2": written["stage2"] | stage,
        "students": {"s": {"method": "dphubert", "teachers": ["wavlm-random"], "sparsity": 0.5}},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(written))
    shutil.copytree(ROOT / "data", folder / "data", ignore=shutil.ignore_patterns("teachers"))
    return folder


def jobs_in(folder: Path) -> list[int]:
    """Processes of this project that work in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and "skill" in process.cmdline():
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def kill_and_finish(tmp_path: Path, rounds: int) -> None:
    whole, parts = project(tmp_path / "the whole"), project(tmp_path / "in parts")
    begin = time.monotonic()
    assert started(whole).wait(600) == 0, (whole / "run.log").read_text()
    length = time.monotonic() - begin
    draw = random.Random(0)
    for number in range(rounds):
        kind, all_of_them = KINDS[number % len(KINDS)]
        run = started(parts)
        time.sleep(draw.uniform(0, length))
        if run.poll() is None:
            if all_of_them:
                os.killpg(run.pid, kind)
            else:
                run.send_signal(kind)
        run.wait(120)
        wait_for(lambda: not jobs_in(parts), 120, (parts / "run.log").read_text)
    last = started(parts)
    assert last.wait(600) == 0, (parts / "run.log").read_text()[-5000:]
    for name in ("stage1/s", "stage2/s"):
        for ending in ("safetensors", "json"):
            made = [sha256(folder / f"results/{name}.{ending}") for folder in (whole, parts)]
            assert made[0] == made[1], f"{name}.{ending}"


@pytest.mark.timeout(1200)
def test_a_run_that_is_killed_gives_the_same_student(tmp_path: Path) -> None:
    kill_and_finish(tmp_path, 3)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_run_that_is_killed_often_gives_the_same_student(tmp_path: Path) -> None:
    kill_and_finish(tmp_path, int(os.environ.get("SKILL_KILLS", "30")))
