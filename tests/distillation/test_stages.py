"""Both stages on generated speech: sizes, files, resume after a kill, bad input."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from skill.config.jobs import Stage1Job, Stage2Job
from skill.config.methods import Distances, LayerTarget, Method
from skill.config.params import Corpus, RandomEncoder, Teacher, Unlabelled
from skill.config.training import Stage1, Stage2
from skill.data.batches import Batches
from skill.data.corpora import prepare
from skill.data.manifest import usable
from skill.distillation import stages
from skill.distillation.sparsity import full_size
from skill.encoder import EncoderConfig, SpeechEncoder, checkpoint
from skill.encoder.checkpoint import load_encoder
from skill.teachers.fetch import run_teacher
from skill.training.batches import ProcessShare
from skill.training.distributed import World
from skill.utils.errors import SkillError
from skill.utils.files import canonical_json, read_csv, read_json, read_tensors, write_json

SKILL = Method(
    prune=("conv", "head", "ffn"), targets="clusters", distances=Distances(l1=1.0, cosine=1.0)
)
DISTILHUBERT = Method(
    start_blocks=1,
    targets=(LayerTarget(layer=2, student="last"),),
    head="mlp",
    distances=Distances(l1=1.0, log_sigmoid_cosine=1.0),
)
STAGE: dict[str, Any] = {
    "warmup": 2, "learning_rate": 1e-3, "batch_seconds": 4.0, "micro_seconds": 2.0,
    "precision": "float32", "log_every": 2, "validate_every": 4, "dropout": 0.05,
}  # fmt: skip


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, a teacher and a clustering."""
    folder = tmp_path_factory.mktemp("with space")
    prepare.run(
        "beeps",
        Corpus(kind="synthetic", speakers=3, sentences=10),
        folder / "beeps.csv",
        folder / "beeps.flac",
    )
    random = RandomEncoder(family="wavlm", blocks=3, width=32, heads=2, ffn=64, conv_channels=16)
    run_teacher("t", Teacher(random=random), folder / "t.safetensors")
    write_json(folder / "g.json", {"layers": [[["t", 0], ["t", 1]], [["t", 2], ["t", 3]]]})
    return folder


def job1(
    steps: int = 8, method: Method = SKILL, sparsity: float | None = 0.6, **others: Any
) -> Stage1Job:
    return Stage1Job(
        seed=3,
        teachers=("t",),
        definition=method,
        sparsity=sparsity,
        unlabelled=Unlabelled(corpora=("beeps",), min_seconds=0.3),
        stage=Stage1(steps=steps, sparsity_warmup=2, **STAGE | others),
    )


def job2(steps: int = 4, method: Method = SKILL) -> Stage2Job:
    return Stage2Job(
        seed=3,
        teachers=("t",),
        definition=method,
        unlabelled=Unlabelled(corpora=("beeps",), min_seconds=0.3),
        stage=Stage2(steps=steps, **STAGE | {"warmup": min(2, steps)}),
    )


def test_stage_2_goes_on_in_the_order_of_stage_1(speech: Path) -> None:
    batches = Batches(usable([speech / "beeps.csv"], 0.3, 16.0, "train"), 4.0, 3)
    alone = World(0, 1, "cpu")
    first, second = (ProcessShare(batches, alone, step) for step in (0, 3))
    assert [second.at(step) for step in range(4)] == [first.at(step) for step in range(3, 7)]
    seen = {u.id for step in range(3) for part in first.at(step) for u in part.utterances}
    assert not seen & {u.id for part in second.at(0) for u in part.utterances}


def outputs(folder: Path, stage: str) -> tuple[Path, Path, Path, Path]:
    names = [f"{stage}.safetensors", f"{stage}.csv", f"{stage}.json", f"scratch-{stage}"]
    return tuple(folder / name for name in names)  # type: ignore[return-value]


def run1(speech: Path, out: Path, job: Stage1Job | None = None) -> Path:
    job = job or job1()
    clustering = speech / "g.json" if job.definition.targets == "clusters" else None
    output, *_, scratch = outputs(out, "s1")
    teachers, manifests = [speech / "t.safetensors"], [speech / "beeps.csv"]
    files = stages.StageFiles(teachers, manifests, clustering, output, scratch)
    stages.stage1("s", job, files)
    return output


def run2(speech: Path, out: Path, job: Stage2Job, student: Path) -> Path:
    output, *_, scratch = outputs(out, "s2")
    teachers, manifests = [speech / "t.safetensors"], [speech / "beeps.csv"]
    files = stages.StageFiles(teachers, manifests, speech / "g.json", output, scratch, student)
    stages.stage2("s", job, files)
    return output


def test_stage_1_meets_the_sparsity_and_stage_2_starts_from_it(
    speech: Path, tmp_path: Path
) -> None:
    pruned = run1(speech, tmp_path)
    assert not list((tmp_path / "scratch-s1").glob("*.pt"))  # what to resume from is of no use now
    summary = read_json(tmp_path / "s1.json")
    teacher = load_encoder(speech / "t.safetensors")
    assert summary["parameters"] == pytest.approx(0.4 * (teacher.num_parameters() + 16), rel=0.01)
    assert summary["teacher_parameters"] == teacher.num_parameters()
    curve = read_csv(tmp_path / "s1.csv")
    assert [row["step"] for row in curve] == ["2", "4", "6", "8"]
    assert [float(row["target_sparsity"]) for row in curve] == pytest.approx([0.3, 0.6, 0.6, 0.6])
    assert curve[1]["validation_loss"] and not curve[0]["validation_loss"]

    student = load_encoder(run2(speech, tmp_path, job2(0), pruned))
    tensors, header = read_tensors(pruned)
    for name, value in student.state_dict().items():
        assert torch.equal(value, tensors[f"encoder.{name}"]), name
    assert header["provenance"]["inputs"].keys() == {"t.safetensors", "beeps.csv", "g.json"}

    finished = run2(speech, tmp_path, job2(6), pruned)
    trained = load_encoder(finished)
    assert trained.config == student.config
    assert trained.config.attention_dropout == 0.05 != teacher.config.attention_dropout
    assert not torch.equal(trained.state_dict()["encoder.layer_norm.weight"],
                           student.state_dict()["encoder.layer_norm.weight"])  # fmt: skip
    with pytest.raises(SkillError, match="not a student of stage 1"):
        run2(speech, tmp_path, job2(), finished)


def test_a_method_without_pruning_passes_through(speech: Path, tmp_path: Path) -> None:
    path = run1(speech, tmp_path, job1(4, DISTILHUBERT, None))
    _, header = read_tensors(path)
    assert len(header["config"]["ffn"]) == 1
    assert header["config"]["ffn"] == [64]
    assert read_json(tmp_path / "s1.json")["targets"][0]["student"] == [1]


def test_a_student_of_some_blocks_is_pruned_by_its_own_size(
    speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a cut that the gates did not come to is told."""
    method = DISTILHUBERT.model_copy(update={"prune": ("head", "ffn"), "start_blocks": 2})
    header = read_tensors(run1(speech, tmp_path, job1(4, method, 0.3)))[1]
    summary = read_json(tmp_path / "s1.json")
    teacher = load_encoder(speech / "t.safetensors").config
    whole = SpeechEncoder(replace(teacher, heads=teacher.heads[:2], ffn=teacher.ffn[:2]))
    assert len(header["config"]["ffn"]) == 2
    assert summary["parameters"] == pytest.approx(0.7 * whole.num_parameters(), rel=0.02)
    assert summary["expected_sparsity"] < 0.2
    assert "the rest is pruned in one step" in capsys.readouterr().err


def test_the_same_job_gives_the_same_student(speech: Path, tmp_path: Path) -> None:
    first, second = (run1(speech, tmp_path / name, job1(4)) for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert (tmp_path / "a/s1.json").read_bytes() == (tmp_path / "b/s1.json").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_verb_goes_on_and_ends_with_the_same_bytes(
    speech: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """The real verb in a real process, killed in the middle, then started again."""
    job = job1(40)
    whole = run1(speech, tmp_path / "whole", job)
    files = outputs(tmp_path / "parts", "s1")
    command = [sys.executable, "-m", "skill", "stage1", "s", "--params"]
    command += [canonical_json(job.model_dump(mode="json"))]
    command += ["--teachers", str(speech / "t.safetensors")]
    command += ["--manifests", str(speech / "beeps.csv"), "--clustering", str(speech / "g.json")]
    command += ["--output", str(files[0]), "--scratch", str(files[3])]
    hurried = "import runpy; from skill.training import checkpoints; "
    hurried += "checkpoints._CHECKPOINT_SECONDS = 0.0; "
    hurried += "runpy.run_module('skill', run_name='__main__')"
    process = subprocess.Popen(
        [sys.executable, "-c", hurried, *command[3:]], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (files[3] / "previous.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, text = process.communicate(timeout=60)
    assert process.returncode == (143 if number == signal.SIGTERM else -signal.SIGKILL), text
    assert not files[0].exists()
    again = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert "resumed at step" in again.stderr
    assert files[0].read_bytes() == whole.read_bytes()


def test_two_processes_stop_together_and_go_on(speech: Path, tmp_path: Path) -> None:
    """The verb under torchrun: one process alone is told to stop; the student has its size."""
    job = job1(40, micro_seconds=1.0)
    files = outputs(tmp_path, "s1")
    verb = ["stage1", "s", "--params", canonical_json(job.model_dump(mode="json"))]
    verb += ["--teachers", str(speech / "t.safetensors"), "--clustering", str(speech / "g.json")]
    verb += ["--manifests", str(speech / "beeps.csv")]
    verb += ["--output", str(files[0]), "--scratch", str(files[3])]
    program = tmp_path / "verb.py"
    program.write_text(
        "import os, runpy, signal, sys\n"
        "import skill.distillation.distiller as p\n"
        "begin = p.Distiller.begin_step\n"
        "def stopped(self, step):\n"
        "    if step == 20 and os.environ['RANK'] == '1' and os.environ['TOLD'] == '1':\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    begin(self, step)\n"
        "p.Distiller.begin_step = stopped\n"
        "runpy.run_module('skill', run_name='__main__')\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", str(program), *verb]
    first, second = (
        subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | {"TOLD": told}
        )
        for told in "10"
    )
    assert first.returncode and "stopped at step 21" in first.stderr, first.stderr
    assert not second.returncode and "resumed at step 21" in second.stderr, second.stderr
    teacher = load_encoder(speech / "t.safetensors")
    assert read_json(files[2])["parameters"] == pytest.approx(0.4 * full_size(teacher), rel=0.02)


def test_bad_input_is_said_in_words(speech: Path, tmp_path: Path) -> None:
    with pytest.raises(SkillError, match=r"0.99 is out of reach"):
        run1(speech, tmp_path, job1(sparsity=0.99))
    short = job1().model_copy(
        update={"unlabelled": Unlabelled(corpora=("beeps",), min_seconds=10.0)}
    )
    with pytest.raises(SkillError, match=r"beeps.csv: no train utterance of 10.0 to 15"):
        run1(speech, tmp_path, short)
    broken = tmp_path / "broken"
    broken.mkdir()
    manifest = (speech / "beeps.csv").read_text().replace(str(speech), str(broken))
    (broken / "beeps.csv").write_text(manifest)
    (broken / "beeps.flac").write_bytes((speech / "beeps.flac").read_bytes()[:2000])
    (broken / "g.json").write_text(json.dumps(read_json(speech / "g.json")))
    checkpoint.save_encoder(load_encoder(speech / "t.safetensors"), broken / "t.safetensors")
    with pytest.raises(SkillError, match=r"utterances cannot be read|beeps\.flac"):
        run1(broken, tmp_path)
    for text in ("{}", '{"layers": [[["t", "first"]]]}', '{"layers": [[["t", 9]]]}'):
        (broken / "g.json").write_text(text)
        reason = r"g\.json: (no clusters|layers has|teacher t has no layer 9)"
        with pytest.raises(SkillError, match=reason):
            run1(broken, tmp_path)
    with pytest.raises(SkillError, match="0 files for the teachers t"):
        stages.load_teachers(["t"], [], "cpu")
    config = EncoderConfig.uniform("hubert", width=32, blocks=1, heads=2, ffn=16, conv=16)
    other = replace(config, conv_strides=(5, *config.conv_strides[2:], 4))
    checkpoint.save_encoder(SpeechEncoder(other), broken / "other.safetensors")
    with pytest.raises(SkillError, match=r"teacher u: convolutions .* other frames than t's"):
        stages.load_teachers(
            ["t", "u"], [speech / "t.safetensors", broken / "other.safetensors"], "cpu"
        )
    assert not (tmp_path / "s1.safetensors").exists()
