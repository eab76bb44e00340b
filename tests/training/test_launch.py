"""Several processes for one job: same result, shared threads, stopped together."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import trainings, wait_for

from skill.config.jobs import Stage1Job
from skill.config.methods import Distances, Method
from skill.config.params import Corpus, RandomEncoder, Teacher, Unlabelled
from skill.config.training import Stage1
from skill.data.corpora import prepare
from skill.teachers.fetch import run_teacher
from skill.utils.files import canonical_json, read_csv, read_json, write_json

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
    outputs = {"output": "s.safetensors", "scratch": "w"}
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
