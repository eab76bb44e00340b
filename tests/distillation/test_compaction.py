"""Compaction: the same function, the same moments, the same target, the same bits after a stop."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.encoders import KINDS, assert_same, gated
from hypothesis import given, settings
from hypothesis import strategies as st

from skill.config.methods import Distances, Method
from skill.distillation import gates
from skill.distillation.compaction import SHUT, compacted, lasting
from skill.distillation.distiller import Distillation
from skill.distillation.pruning import prune
from skill.distillation.stages import start_student
from skill.distillation.targets import build_targets
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.training.loop import Micro, adamw, train

METHOD = Method(
    prune=("conv", "head", "ffn"), targets="clusters", distances=Distances(l1=1.0, cosine=1.0)
)


def shut(encoder: SpeechEncoder, share: float = 0.4, seed: int = 0) -> SpeechEncoder:
    """Close a share of the gates for good."""
    draw = torch.Generator().manual_seed(seed)
    for _, gate in gates.gates_of(encoder):
        closed = torch.rand(gate.log_alpha.shape, generator=draw) < share
        gate.log_alpha.data[closed] = -15.0
    return encoder


@pytest.mark.parametrize("units", KINDS, ids="+".join)
@pytest.mark.parametrize("family", ["wavlm", "hubert"])
def test_a_compacted_encoder_gives_what_the_whole_one_gives(
    family: str, units: tuple[str, ...]
) -> None:
    whole = shut(gated(family, units)).double()
    kept = lasting(whole, 0)
    assert kept is not None
    part = compacted(whole, kept)
    assert part.num_parameters() < whole.num_parameters()
    assert_same(prune(whole), prune(part))
    assert_same(whole, part)
    assert lasting(part, 0) is None


def test_twice_is_the_same_function_too() -> None:
    whole = shut(gated("wavlm", ("conv", "head", "ffn")), 0.3).double()
    part = whole
    for seed in (1, 2):
        kept = lasting(shut(part, 0.3, seed), 0)
        assert kept is not None
        before, part = part, compacted(part, kept)
        assert_same(before, part)
        part.double()


@settings(max_examples=15)
@given(st.floats(0.0, 0.9), st.integers(0, 1000))
def test_the_expected_size_still_refers_to_the_teacher(share: float, seed: int) -> None:
    """What has gone counts as gone: the removed gates' last chances, one in 10,000, and the vector
    that stands for removed channels are all the difference."""
    whole = shut(gated("wavlm", ("conv", "head", "ffn"), seed=seed), share, seed)
    target = gates.SparsityTarget(whole, 0.5, ramp=0)
    kept = lasting(whole, 0)
    if kept is None:
        return
    part = compacted(whole, kept)
    vector = whole.config.width if part.config.conv_masked else 0
    slack = SHUT * gates.full_size(whole)
    before, after = (float(gates.expected_size(encoder).detach()) for encoder in (whole, part))
    rounding = 1e-6 * gates.full_size(whole)  # of float32
    assert before + vector - slack <= after <= before + vector + rounding
    assert float(target(part, 0)[1].detach()) == pytest.approx(1 - after / target.full, abs=1e-6)


def test_nothing_goes_that_the_final_target_needs() -> None:
    whole = shut(gated("hubert", ("conv", "head", "ffn")), 0.7)
    full = gates.full_size(whole)
    kept = lasting(whole, 0)
    assert kept is not None
    left = compacted(whole, kept)
    size = left.num_parameters() - sum(g.log_alpha.numel() for _, g in gates.gates_of(left))
    assert lasting(whole, size) is not None
    assert lasting(whole, size + 1) is None
    sparsity = 1 - 0.9 * size / full
    gates.select(left, sparsity, full)
    assert prune(left).num_parameters() == pytest.approx(0.9 * size, rel=0.005)


def test_a_convolution_keeps_a_channel_and_a_block_may_lose_everything() -> None:
    whole = gated("wavlm", ("conv", "head", "ffn"))
    whole.convolutions[3].gate.log_alpha.data.fill_(-15.0)
    whole.blocks[0].attention.gate.log_alpha.data.fill_(-15.0)
    whole.blocks[1].feed_forward.gate.log_alpha.data.fill_(-15.0)
    kept = lasting(whole, 0)
    assert kept is not None
    part = compacted(whole, kept)
    assert part.config.conv_channels[3] == 1
    assert part.config.heads[0] == () and part.config.ffn[1] == 0
    names = [name for name, _ in gates.gates_of(part)]
    assert "encoder.layers.0.attention.gate" not in names
    with torch.no_grad():
        part(torch.randn(1, 4000))


@dataclass(frozen=True)
class Settings:
    steps: int = 8
    warmup: int = 1
    clip: float = 10.0
    precision: str = "float32"
    tf32: bool = False
    log_every: int = 1
    validate_every: int = 100
    max_bad_steps: int = 3


def experiment(**others: Any) -> Distillation:
    """A student with a third of its gates shut already."""
    torch.manual_seed(0)
    config = EncoderConfig.uniform(
        "wavlm", width=32, blocks=2, heads=4, ffn=48, conv=16, pos_conv_kernel=16,
        pos_conv_groups=4, **others,
    )  # fmt: skip
    teacher = SpeechEncoder(config).eval()
    student = start_student(teacher, None)
    gates.attach(student, METHOD.prune)
    shut(student, 0.35)
    target = gates.SparsityTarget(student, 0.5, ramp=0)
    clusters = [[("a", 0), ("a", 1)], [("a", 2)]]
    return Distillation(
        student, {"a": teacher}, build_targets(METHOD, {"a": (2, 32)}, clusters), METHOD,
        learning_rate=1e-3, pruning=target, gate_learning_rate=0.02,
    )  # fmt: skip


def batches(first: int) -> Iterator[tuple[int, list[Micro]]]:
    for step in range(first, 100):
        draw = torch.Generator().manual_seed(step)
        waveforms = torch.randn(2, 3000, generator=draw)
        yield step, [Micro(["x", "y"], waveforms, torch.full((2,), 3000))]


def go(folder: Path, trained: Distillation, every: int = 3, after: int = 0, **kw: Any) -> Any:
    """Train; at every `every`-th step units go; with `after`, SIGTERM comes in that step."""

    def reshape(done: int, optimizer: torch.optim.AdamW) -> torch.optim.AdamW | None:
        if done == after:
            os.kill(os.getpid(), signal.SIGTERM)
        return trained.compact(optimizer) if every and done % every == 0 else None

    outcome = train(
        trained, batches, replace(Settings(), **kw), seed=1, folder=folder, label="c",
        fingerprint="f", reshape=reshape,
    )  # fmt: skip
    return trained, outcome


def figures(outcome: Any) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k != "audio_per_second"} for row in outcome.curve]


@pytest.mark.parametrize("after", [2, 3, 4, 6])
def test_a_stopped_run_with_compaction_ends_with_the_same_bits(tmp_path: Path, after: int) -> None:
    whole, outcome = go(tmp_path / "whole", experiment())
    assert whole.student.num_parameters() < experiment().student.num_parameters()
    with pytest.raises(SystemExit):
        go(tmp_path / "parts", experiment(), after=after)
    resumed, second = go(tmp_path / "parts", experiment())
    assert resumed.student.config == whole.student.config
    for name, value in whole.state_dict().items():
        assert name == "_extra_state" or torch.equal(value, resumed.state_dict()[name]), name
    assert figures(outcome) == figures(second)


def test_the_moments_go_on_and_training_hardly_notices(tmp_path: Path) -> None:
    """Without dropout and noise in open gates the curves with and without compaction are one."""

    still = {"projection_dropout": 0.0, "attention_dropout": 0.0, "hidden_dropout": 0.0}

    def quiet() -> Distillation:
        made = experiment(**still)
        for _, gate in gates.gates_of(made.student):
            gate.log_alpha.data[gate.log_alpha > -15] = 30.0
        return made

    (_, without), (part, outcome) = (
        go(tmp_path / str(every), quiet(), every, steps=5) for every in (0, 2)
    )
    assert part.student.num_parameters() < 0.8 * quiet().student.num_parameters()
    first, second = ([row["distillation"] for row in done.curve] for done in (without, outcome))
    assert first[:3] == pytest.approx(second[:3], rel=1e-5)
    assert first[3:] == pytest.approx(second[3:], rel=2e-3)  # `scale`, `removed` learn anew


def test_moments_are_cut_like_their_weights() -> None:
    trained = experiment()
    optimizer = adamw(trained.parameter_groups())
    for parameter in trained.parameters():
        parameter.grad = parameter.detach().clone()
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.param_groups[1]["lr"] = 0.0
    optimizer.step()
    changed = trained.compact(optimizer)
    assert changed is not None
    for name, parameter in trained.named_parameters():
        state = changed.state[parameter]
        if name.rpartition(".")[2] in ("scale", "removed"):
            assert not state
        elif name != "student.feature_projection.projection.bias":
            torch.testing.assert_close(state["exp_avg"], 0.1 * parameter.detach())
            torch.testing.assert_close(state["exp_avg_sq"], 0.001 * parameter.detach().square())
            assert float(state["step"]) == 1
    assert trained.compact(changed) is None
