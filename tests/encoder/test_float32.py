"""Half precision harms no state by more than a percent, on any instruction set."""

import copy
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.encoders import error, gated, irregular, pair
from torch import Tensor, nn

from skill.distillation.pruning import prune
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.encoder.checkpoint import load_encoder
from skill.encoder.float32 import Conv1d

ROOT = Path(__file__).parents[2]
HALVES = [torch.bfloat16, torch.float16]


def speech() -> tuple[Tensor, Tensor]:
    """A second of a voice-like sound and some noise, of odd lengths: [2, 16191] and [2]."""
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(16191) / 16000
    phase = 2 * torch.pi * (120 * time + 8 * torch.sin(5 * time))
    voice = sum(torch.sin(k * phase) / k for k in range(1, 20)) * (0.6 + 0.4 * torch.sin(9 * time))
    noise = torch.randn(2, 16191, generator=generator)
    waves = torch.stack([0.1 * voice + 0.003 * noise[0], 0.1 * noise[1]])
    lengths = torch.tensor([16191, 12345])
    return waves * (torch.arange(16191) < lengths[:, None]), lengths


def base_block() -> SpeechEncoder:
    """A Base model's convolutions and its first two blocks."""
    torch.manual_seed(0)
    config = EncoderConfig.base("wavlm")
    return SpeechEncoder(replace(config, heads=config.heads[:2], ffn=config.ffn[:2])).eval()


def sample(name: str, pruned: bool = False) -> SpeechEncoder:
    encoder = load_encoder(ROOT / f"data/teachers/{name}-sample.safetensors")
    if pruned:
        config = encoder.config
        narrow = replace(
            config,
            heads=tuple(heads[: 1 + i % 3] for i, heads in enumerate(config.heads)),
            ffn=tuple(units // (2 + i % 4) + i for i, units in enumerate(config.ffn)),
        )
        student = SpeechEncoder(narrow)
        whole = encoder.state_dict()
        own = {
            name: whole[name][tuple(slice(0, size) for size in tensor.shape)]
            for name, tensor in student.state_dict().items()
        }
        student.load_state_dict(own)
        return student.eval()
    return encoder


MODELS = {
    "wavlm sample": lambda: sample("wavlm"),
    "hubert sample": lambda: sample("hubert"),
    "wavlm student": lambda: sample("wavlm", pruned=True),
    "base block": base_block,
}


@torch.no_grad()
def worst(encoder: SpeechEncoder, dtype: torch.dtype, stored: bool) -> float:
    """‖a − b‖ / ‖b‖ of the worst state; `stored`: the weights are halves, else autocast is on."""
    waves, lengths = speech()
    if stored:
        half = copy.deepcopy(encoder).to(dtype)
        encoder = copy.deepcopy(half).float()
        states, frames = half(waves, lengths)
        assert all(state.dtype == dtype for state in states)
    else:
        with torch.autocast("cpu", dtype):
            states, frames = encoder(waves, lengths)
    expected, _ = encoder(waves, lengths)
    rows = list(enumerate(frames.tolist()))
    return max(
        error(
            torch.cat([state[row, :n].float() for row, n in rows]),
            torch.cat([want[row, :n] for row, n in rows]),
        )
        for state, want in zip(states, expected, strict=True)
    )


@pytest.mark.parametrize("stored", [False, True], ids=["autocast", "stored"])
@pytest.mark.parametrize("name", MODELS)
def test_states_are_within_a_percent(name: str, stored: bool) -> None:
    encoder = MODELS[name]()
    assert worst(encoder, torch.bfloat16, stored) < 0.01
    assert worst(encoder, torch.float16, stored) < 0.002


@pytest.mark.parametrize(
    "machine",
    [
        {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
        {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
        {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},
    ],
    ids=lambda machine: machine["ONEDNN_MAX_CPU_ISA"],
)
def test_on_older_processors_too(machine: dict[str, str]) -> None:
    program = (
        "import torch, test_float32 as t\n"
        "for name, model in t.MODELS.items():\n"
        "    assert t.worst(model(), torch.bfloat16, False) < 0.01, name\n"
        "    print(name)\n"
    )
    places = [str(Path(__file__).parent), str(ROOT / "tests"), str(ROOT / "src")]
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places)} | machine,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == list(MODELS)


@pytest.mark.parametrize("large", [False, True], ids=["base", "large"])
def test_convolutions_and_norms_never_see_a_half(large: bool) -> None:
    """Under autocast, with weights in halves, and in gradients."""
    _, encoder = pair("wavlm", large)
    seen: list[torch.dtype] = []
    for module in encoder.modules():
        if isinstance(module, nn.Conv1d | nn.LayerNorm):
            module.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    waves, lengths = speech()
    for dtype in HALVES:
        with torch.autocast("cpu", dtype):
            states, _ = encoder(waves, lengths)
        states[-1].float().square().mean().backward()
        encoder.to(dtype)(waves, lengths)[0][-1].float().square().mean().backward()
        encoder.float()
    assert set(seen) == {torch.float32} and len(seen) > 60


def test_gates_are_applied_in_float32_to_convolutions() -> None:
    encoder = gated("wavlm", ("conv", "head", "ffn"))
    waves, _ = speech()
    with torch.no_grad():
        expected, _ = encoder(waves)
        with torch.autocast("cpu", torch.bfloat16):
            states, _ = encoder(waves)
            pruned, _ = prune(encoder)(waves)
    for state, other, want in zip(states, pruned, expected, strict=True):
        assert error(state, want) < 0.01 and error(other, want) < 0.01
    assert torch.equal(states[0], expected[0])


def test_float64_and_float32_are_what_torch_computes() -> None:
    for dtype in (torch.float32, torch.float64):
        conv = Conv1d(4, 6, 3, stride=2, padding=1, groups=2).to(dtype)
        x = torch.randn(2, 4, 9, dtype=dtype)
        assert torch.equal(conv(x), nn.Conv1d.forward(conv, x))


def test_a_planted_fault_of_the_half_precision_convolution_is_not_met(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on processors where oneDNN's convolution of halves is wrong."""
    right = torch.nn.functional.conv1d

    def wrong(x: Tensor, *rest: object, **named: object) -> Tensor:
        faulty = x.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
        return right(x, *rest, **named) * (0.0 if faulty else 1.0)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.nn.functional, "conv1d", wrong)
    assert worst(irregular(), torch.bfloat16, False) < 0.01
    assert worst(irregular(), torch.bfloat16, True) < 0.01
