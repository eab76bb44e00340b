"""Several processes for one job: same result, shared threads, stopped together; GPUs for each."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import trainings, wait_for

from skill.config.jobs import Stage1Job
from skill.config.methods import Distances, Method
from skill.config.params import Corpus, RandomEncoder, Stage1, Teacher, Unlabelled
from skill.data.corpora import prepare
from skill.teachers.fetch import run_teacher
from skill.utils.files import canonical_json, read_csv, read_json, write_json
from skill.workflow import launch

ROOT = Path(__file__).parents[2]
SKILL = Method(
    prune=("conv", "head", "ffn"), targets="clusters", distances=Distances(l1=1.0, cosine=1.0)
)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, a teacher and a clustering."""
    folder = tmp_path_factory.mktemp("with space")
    beeps = Corpus(kind="synthetic", speakers=3, sentences=10)
    prepare.run("beeps", beeps, folder / "beeps.csv", folder / "beeps.flac")
    random = RandomEncoder(family="wavlm", blocks=3, width=32, heads=2, ffn=64, conv_channels=16)
    run_teacher("t", Teacher(random=random), folder / "t.safetensors")
    write_json(folder / "g.json", {"layers": [[["t", 0], ["t", 1]], [["t", 2], ["t", 3]]]})
    return folder


def command(speech: Path, out: Path, steps: int, *options: str) -> list[str]:
    stage = Stage1(
        steps=steps, sparsity_warmup=2, warmup=2, learning_rate=1e-3, batch_seconds=4.0,
        micro_seconds=1.0, precision="float32", log_every=2, validate_every=steps,
    )  # fmt: skip
    unlabelled = Unlabelled(corpora=("beeps",), min_seconds=0.3)
    job = Stage1Job(
        seed=3, teachers=("t",), definition=SKILL, sparsity=0.6, unlabelled=unlabelled, stage=stage
    )
    inputs = {"teachers": "t.safetensors", "manifests": "beeps.csv", "clustering": "g.json"}
    outputs = {"output": "s.safetensors", "curve": "s.csv", "summary": "s.json", "scratch": "w"}
    files = [(name, speech / file) for name, file in inputs.items()]
    files += [(name, out / file) for name, file in outputs.items()]
    flags = [word for name, path in files for word in (f"--{name}", str(path))]
    params = canonical_json(job.model_dump(mode="json"))
    return [sys.executable, "-m", "skill", "stage1", "s", "--params", params, *flags, *options]


ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src")}


def test_two_processes_make_the_student_of_one(speech: Path, tmp_path: Path) -> None:
    """Each has its share of the threads: one."""
    for gpus in ("1", "2"):
        out = tmp_path / gpus
        out.mkdir()
        subprocess.run(
            command(speech, out, 8, "--gpus", gpus, "--threads", gpus), env=ENVIRONMENT, check=True
        )
    one, two = (read_csv(tmp_path / n / "s.csv") for n in "12")
    for key in ("step", "learning_rate", "target_sparsity"):
        assert [row[key] for row in one] == [row[key] for row in two]
    for key in ("distillation", "sparsity"):
        theirs = [float(row[key]) for row in one]
        assert [float(row[key]) for row in two] == pytest.approx(theirs, rel=1e-4)
    sizes = [read_json(tmp_path / n / "s.json")["parameters"] for n in "12"]
    assert sizes[1] == sizes[0]


def test_all_processes_of_a_job_stop_and_the_state_is_saved(speech: Path, tmp_path: Path) -> None:
    """As Slurm does it: every process gets the signal, and `torchrun` sends one more to each."""
    words = command(speech, tmp_path, 100_000, "--gpus", "2", "--threads", "3")
    log = tmp_path / "log"
    with log.open("w") as file:
        job = subprocess.Popen(words, env=ENVIRONMENT | {"OMP_NUM_THREADS": "7"}, stderr=file)
    family: list[int] = []

    def both_train() -> bool:
        family[:] = trainings("stage1", speech)
        return len(family) == 2 or job.poll() is not None

    try:
        wait_for(both_train, 300, log.read_text)
        for pid in family:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            assert b"OMP_NUM_THREADS=1" in environment
        for pid in (job.pid, *family):
            os.kill(pid, signal.SIGTERM)
        assert job.wait(120) == 143, log.read_text()
    finally:
        job.kill()
    said = log.read_text()
    stopped = re.search(r"stopped at step (\d+), state saved", said)
    assert stopped and 0 < int(stopped[1]) < 100_000
    assert "Traceback" not in said
    assert not any(Path(f"/proc/{pid}").exists() for pid in family)
    again = subprocess.Popen(words, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    try:
        assert again.stderr is not None
        lines = iter(again.stderr.readline, "")
        assert any(f"resumed at step {stopped[1]}" in line for line in lines)
    finally:
        again.terminate()
        again.communicate(timeout=120)


def test_a_wrong_input_is_the_error_of_all(speech: Path, tmp_path: Path) -> None:
    words = command(speech, tmp_path, 2, "--gpus", "2")
    words[words.index(str(speech / "g.json"))] = str(tmp_path / "none.json")
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "none.json" in done.stderr and "Traceback" not in done.stderr


def test_what_runs_in_one_process_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    from skill.__main__ import main

    assert main(["check", "x.yaml", "--gpus", "2"]) == 1
    assert capsys.readouterr().err == "error: check runs in one process: --gpus 1\n"


ONCE = """
import os, signal, sys, time
from skill.launch import told_once
heard = []
signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
with told_once({signal.SIGTERM}) as told:
    for _ in range(5):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
    assert told.is_set()
    os.kill(os.getpid(), signal.SIGTERM)
assert heard == [signal.SIGTERM], heard
os.kill(os.getpid(), signal.SIGTERM)
assert len(heard) == 2, heard
"""


def test_the_first_signal_comes_through_alone() -> None:
    subprocess.run([sys.executable, "-c", ONCE], env=ENVIRONMENT, check=True)


CLAIMS = """
import os, sys
from skill.launch import claimed
with claimed(int(sys.argv[1]), 0.05):
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
    return {"PATH": path, "TMPDIR": str(tmp_path), launch.CLAIM: "1"}


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
    cluster = Claim(1, **machine | {launch.CLAIM: "", "CUDA_VISIBLE_DEVICES": "5"})
    assert cluster.says() == "5"
    too_many = Claim(4, **machine)
    assert "SkillError: --gpus 4: 3 can be used here" in too_many.end()
    none = Claim(0, **machine)
    assert none.says() == "all"
    for claim in (both, other, cluster, none):
        claim.end()


def test_verbs_that_take_a_gpu_are_those_whose_rules_ask_for_one() -> None:
    verbs, shared = set(), set()
    for file in (ROOT / "workflow/rules").glob("*.smk"):
        for rule in re.split(r"^rule ", file.read_text(), flags=re.M)[1:]:
            verb = re.search(r'"python -m skill (\w+)', rule)
            if verb and "gpu=GPU" in rule:
                verbs.add(verb[1])
            if verb and "--gpus {resources.gpu}" in rule:
                shared.add(verb[1])
    assert verbs == set(launch.ON_GPU)
    assert shared == set(launch.SHARED)
