"""Wrong kernels are noticed: by the check itself, by a job, and by the table for users."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from skill.config.jobs import ActivationsJob, Stage1Job
from skill.config.methods import Distances, Method
from skill.config.params import Activations, Corpus, RandomEncoder, Teacher, Unlabelled
from skill.config.training import Stage1
from skill.data.corpora import prepare
from skill.data.manifest import read_manifest
from skill.distillation import stages
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.encoder.checkpoint import load_encoder
from skill.similarity import activations
from skill.superb.upstream import load_upstream
from skill.teachers.fetch import run_teacher
from skill.training import exactness, machine_check
from skill.training.exactness import Subject, difference, examine
from skill.training.machine_check import choose_precision, speech_clip, speech_like, table
from skill.utils.errors import SkillError
from skill.utils.files import read_json, read_tensors

CLIP = speech_like()
Kernel = Callable[..., Tensor]


def encoder(family: str = "wavlm") -> SpeechEncoder:
    torch.manual_seed(0)
    config = EncoderConfig.uniform(
        family,  # type: ignore[arg-type]
        width=64, blocks=3, heads=4, ffn=96, conv=24, pos_conv_kernel=16, pos_conv_groups=4,
    )  # fmt: skip
    return SpeechEncoder(config)


def convolution_of_zeros(right: Kernel) -> Kernel:
    """Zeros for one length of the input, as oneDNN with AMX gave them; float64 is right."""

    def wrong(x: Tensor, *rest: Any, **named: Any) -> Tensor:
        out = right(x, *rest, **named)
        return out * 0 if x.shape[-1] == 1599 and x.dtype != torch.float64 else out

    return wrong


def linear_without_last_rows(right: Kernel) -> Kernel:
    def wrong(*values: Any, **named: Any) -> Tensor:
        out = right(*values, **named)
        if out.dtype != torch.bfloat16:
            return out
        kept = torch.ones_like(out)
        kept[..., -2:, :] = 0
        return out * kept

    return wrong


class _HalfGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, weight: Tensor) -> Tensor:
        return weight.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient / 2


def linear_of_wrong_gradient(right: Kernel) -> Kernel:
    def wrong(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if not torch.is_autocast_enabled("cpu"):
            return right(x, weight, bias)
        return right(x, _HalfGradient.apply(weight), bias)

    return wrong


FAULTS = {
    "convolution": ("conv1d", convolution_of_zeros, "float32"),
    "linear": ("linear", linear_without_last_rows, "bf16"),
    "gradient": ("linear", linear_of_wrong_gradient, "bf16"),
}


@pytest.fixture(autouse=True)
def kernels_of_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that has them."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Plants a wrong kernel; returns the precision that it is wrong in."""

    def planted(name: str) -> str:
        function, wrong, precision = FAULTS[name]
        monkeypatch.setattr(F, function, wrong(getattr(F, function)))
        return precision

    return planted


@pytest.mark.parametrize("family", ["wavlm", "hubert"])
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_right_kernels_pass(family: str, precision: str) -> None:
    finding = examine(Subject("x", encoder(family), gradients=True), CLIP, precision)
    assert finding.right, finding
    assert 0 < finding.state_error < exactness.LIMITS[precision][0]
    assert 0 < finding.gradient_error < exactness.LIMITS[precision][1]


def test_a_check_leaves_the_model_and_the_random_numbers_alone() -> None:
    model = encoder().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    examine(Subject("x", model, gradients=True), CLIP, "bf16")
    assert torch.equal(torch.rand(3), expected)
    assert model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_kernel_is_noticed_and_auto_goes_around_it(
    fault: str, plant: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    subjects = [Subject("the student", encoder(), gradients=True)]
    assert choose_precision("job", subjects, CLIP, "auto") == "bf16"
    precision = plant(fault)
    where = {
        "convolution": "the feature projection is off by",
        "linear": "(the feature projection|state .*) is off by",
        "gradient": r"the gradient of [\w.]+ is off by 50\.",
    }[fault]
    message = (
        rf"^job: the student is computed wrongly in {precision} .*{where}.*; .*(MAX_CPU|write)"
    )
    with pytest.raises(SkillError, match=message):
        choose_precision("job", subjects, CLIP, precision)
    shown, right = table(subjects, CLIP)
    assert not right and "WRONG: " in shown
    if precision == "float32":  # nothing is left to go on in
        with pytest.raises(SkillError, match="ONEDNN_MAX_CPU_ISA"):
            choose_precision("job", subjects, CLIP, "auto")
    else:
        assert choose_precision("job", subjects, CLIP, "auto") == "float32"
        assert "job: goes on in float32: the student is computed wrongly in bf16" in (
            capsys.readouterr().err
        )
        assert choose_precision("job", [replace(subjects[0], gradients=False)], CLIP, "auto") == (
            "bf16" if fault == "gradient" else "float32"
        )


def test_the_table_names_model_shape_precision_errors_and_verdict() -> None:
    shown, right = table([Subject("t", encoder(), gradients=True)], CLIP)
    assert right
    head, exact, half = shown.splitlines()
    assert head.split()[:3] == ["model", "shape", "precision"]
    assert "wavlm 3 x 64" in exact and "float32" in exact and exact.endswith("right")
    assert "bf16" in half and half.endswith("right")


def test_a_finding_is_kept_by_machine_shape_and_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = []
    monkeypatch.setattr(
        machine_check, "examine", lambda *values: count.append(1) or examine(*values)
    )

    def ask(**changes: Any) -> None:
        subject = replace(Subject("x", encoder()), **changes)
        assert choose_precision("job", [subject], CLIP, "bf16", tmp_path) == "bf16"

    ask()
    ask(name="another student of this shape")
    assert len(count) == 1 and len(list(tmp_path.glob("*.json"))) == 1
    ask(gradients=True)
    ask(encoder=encoder("hubert"))
    assert len(count) == 3
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    ask()
    assert len(count) == 4
    for path in tmp_path.glob("*.json"):
        path.write_text("{")
    ask()
    assert len(count) == 5


@pytest.mark.parametrize("lost", ["row", "column", "value"])
def test_a_lost_row_or_column_is_a_large_difference(lost: str) -> None:
    reference = torch.randn(2, 40, 30, generator=torch.Generator().manual_seed(0))
    noisy = reference * (1 + 0.004 * torch.randn(reference.shape))
    assert difference(noisy, reference) < 0.01
    if lost == "row":
        noisy[1, -1] = 0
    elif lost == "column":
        noisy[..., -1] = 0
    else:
        noisy[0, 0, 0] = float("nan")
    assert difference(noisy, reference) > 0.5


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("machine")
    prepare.run(
        "beeps", Corpus(kind="synthetic", speakers=3, sentences=10),
        folder / "beeps.csv", folder / "beeps.flac",
    )  # fmt: skip
    random = RandomEncoder(family="wavlm", blocks=2, width=32, heads=2, ffn=64, conv_channels=16)
    run_teacher("t", Teacher(random=random), folder / "t.safetensors")
    return folder


def run_stage1(speech: Path, out: Path, precision: str) -> Path:
    method = Method(
        prune=("head", "ffn"), targets=({"layer": 2},), distances=Distances(l1=1.0)  # type: ignore[arg-type]
    )  # fmt: skip
    job = Stage1Job(
        seed=3, teachers=("t",), definition=method, sparsity=0.2,
        unlabelled=Unlabelled(corpora=("beeps",), min_seconds=0.3),
        stage=Stage1(steps=2, warmup=1, learning_rate=1e-3, batch_seconds=2.0, micro_seconds=2.0,
                     log_every=2, validate_every=2, precision=precision),  # type: ignore[arg-type]
    )  # fmt: skip
    files = stages.StageFiles(
        [speech / "t.safetensors"], [speech / "beeps.csv"], None,
        out / "s.safetensors", out / "scratch",
    )  # fmt: skip
    stages.stage1("s", job, files)
    return out / "s.safetensors"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_stage_notices_it_before_its_first_step(
    fault: str, speech: Path, tmp_path: Path, plant: Callable[[str], str]
) -> None:
    precision = plant(fault)
    with pytest.raises(SkillError, match=f"s stage 1: .* computed wrongly in {precision}"):
        run_stage1(speech, tmp_path, precision)
    assert not list(tmp_path.glob("s.*")) and not list((tmp_path / "scratch").glob("*.pt"))


def test_a_stage_with_auto_goes_on_in_float32_and_says_so_in_its_files(
    speech: Path, tmp_path: Path, plant: Callable[[str], str]
) -> None:
    run_stage1(speech, tmp_path / "right", "auto")
    assert read_json(tmp_path / "right/s.json")["precision"] == "bf16"
    plant("linear")
    header = read_tensors(run_stage1(speech, tmp_path / "wrong", "auto"))[1]
    assert read_json(tmp_path / "wrong/s.json")["precision"] == "float32"
    assert header["provenance"]["machine"]["precision"] == "float32"


def test_activations_and_tasks_notice_it(
    speech: Path, tmp_path: Path, plant: Callable[[str], str]
) -> None:
    clip = speech_clip(read_manifest(speech / "beeps.csv"))
    assert clip.shape == (16000,) and float(np.abs(clip).max()) > 0.01
    plant("convolution")
    unlabelled = Unlabelled(corpora=("beeps",), min_seconds=0.3)
    job = ActivationsJob(
        seed=0, unlabelled=unlabelled, activations=Activations(seconds=5.0, max_frames=100)
    )
    with pytest.raises(SkillError, match="t: t is computed wrongly in float32"):
        activations.run(
            speech / "t.safetensors", [speech / "beeps.csv"], job, tmp_path / "a.safetensors"
        )
    with pytest.raises(SkillError, match="t: t is computed wrongly in float32"):
        load_upstream(speech / "t.safetensors", clip=clip, scratch=tmp_path / "scratch")
    assert load_upstream(speech / "t.safetensors", "auto").precision == "float32"  # type: ignore[attr-defined]


def test_a_clip_is_speech_of_a_second(speech: Path) -> None:
    utterances = read_manifest(speech / "beeps.csv")
    short = [replace(utterances[0], samples=3000)]
    assert speech_clip(short).shape == (16000,)
    missing = replace(utterances[0], path="nowhere.flac")
    assert np.array_equal(speech_clip([missing, utterances[1]]), speech_clip([utterances[1]]))
    with pytest.raises(SkillError, match="no utterance can be read"):
        speech_clip([missing])


def test_the_sample_teachers_pass_on_this_machine() -> None:
    root = Path(__file__).parents[2]
    for name in ("wavlm", "hubert"):
        teacher = load_encoder(root / f"data/teachers/{name}-sample.safetensors")
        assert examine(Subject(name, teacher), CLIP, "float32").right
