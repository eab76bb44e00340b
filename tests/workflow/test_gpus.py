"""Jobs that run beside each other take GPUs of their own, and nobody else's files."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from skill.cli import COMMANDS
from skill.workflow import gpus

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src")}

CLAIMS = """
import os, sys
from skill.workflow.gpus import claim_gpus
with claim_gpus(int(sys.argv[1]), 0.05):
    print(os.environ.get("CUDA_VISIBLE_DEVICES", "all"), flush=True)
    input()
"""


class Claim:
    """A process that holds GPUs until it is told to end."""

    def __init__(self, number: int, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLAIMS, str(number)], env=ENVIRONMENT | environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> str:
        return self.process.communicate("\n", timeout=30)[1]


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """The environment of a job on a machine with three GPUs."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '0\\n1\\n2\\n'\n")
    program.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "TMPDIR": str(tmp_path), gpus.CLAIM: "1"}


def test_jobs_beside_each_other_have_gpus_of_their_own(machine: dict[str, str]) -> None:
    two = Claim(2, **machine)
    assert two.says() == "0,1"
    one = Claim(1, **machine)
    assert one.says() == "2"
    waiting = Claim(2, **machine)
    assert waiting.process.stderr is not None
    assert "waiting for 2 of the GPUs 0, 1, 2" in waiting.process.stderr.readline()
    one.end()
    time.sleep(0.3)
    assert waiting.process.poll() is None
    two.process.kill()  # its GPUs are free however it ends
    assert waiting.says() == "0,1"
    waiting.end()
    two.end()


def test_who_has_gpus_already_keeps_to_them(machine: dict[str, str]) -> None:
    both = Claim(1, **machine | {"CUDA_VISIBLE_DEVICES": "5,GPU-a/1"})
    assert both.says() == "5"
    other = Claim(1, **machine | {"CUDA_VISIBLE_DEVICES": "5,GPU-a/1"})
    assert other.says() == "GPU-a/1"
    cluster = Claim(1, **machine | {gpus.CLAIM: "", "CUDA_VISIBLE_DEVICES": "5"})
    assert cluster.says() == "5"
    too_many = Claim(4, **machine)
    assert "SkillError: --gpus 4: 3 can be used here" in too_many.end()
    none = Claim(0, **machine)
    assert none.says() == "all"
    for claim in (both, other, cluster, none):
        claim.end()


def test_commands_that_take_a_gpu_are_those_whose_rules_ask_for_one() -> None:
    one, several = set(), set()
    for file in (ROOT / "workflow/rules").glob("*.smk"):
        for rule in re.split(r"^rule ", file.read_text(), flags=re.M)[1:]:
            name = re.search(r'"python -m skill (\w+)', rule)
            if name and "gpu=GPU" in rule:
                one.add(name[1])
            if name and "--gpus {resources.gpu}" in rule:
                several.add(name[1])
    assert one == {name for name, command in COMMANDS.items() if command.gpu}
    assert several == {name for name, command in COMMANDS.items() if command.processes}


@pytest.mark.parametrize("kind", ["link", "file", "open"])
def test_a_stranger_can_neither_plant_nor_hold_a_lock(
    machine: dict[str, str], tmp_path: Path, kind: str
) -> None:
    """The shared folder for temporary files has what another user put there first."""
    place, victim = tmp_path / f"skill-gpus-{os.getuid()}", tmp_path / "theirs"
    victim.mkdir()
    (victim / "0").write_text("precious")
    if kind == "link":
        place.symlink_to(victim)
    elif kind == "file":
        place.write_text("x")
    else:
        place.mkdir()
        place.chmod(0o777)
        (place / "0").symlink_to(victim / "0")
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    claims = [Claim(1, **machine, **cache) for _ in range(2)]
    assert {claim.says() for claim in claims} == {"0", "1"}
    for claim in claims:
        claim.end()
    assert (victim / "0").read_text() == "precious"
    assert [path.name for path in victim.iterdir()] == ["0"]
