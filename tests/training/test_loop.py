"""The loop: schedule, resume after any stop, bad steps, several processes."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from skill.data.batches import Batch, BatchPlan
from skill.data.manifest import Utterance
from skill.training.loop import TrainingResult, learning_rate_factor, train
from skill.utils.errors import SkillError

PATHS = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])


@dataclass(frozen=True)
class Settings:
    steps: int = 12
    warmup: int = 3
    clip: float = 10.0
    precision: str = "float32"
    tf32: bool = False
    log_every: int = 2
    validate_every: int = 4
    max_bad_steps: int = 3


class Toy(nn.Module):
    """A small regression with dropout and one ascending parameter."""

    def __init__(self, poison: int | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.map = nn.Linear(16, 4)
        with torch.no_grad():
            self.map.weight.copy_(torch.randn(4, 16, generator=generator))
            self.map.bias.zero_()
        self.multiplier = nn.Parameter(torch.zeros(()))
        self.dropout = nn.Dropout(0.2)
        self.poison = poison

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [
            {"params": list(self.map.parameters()), "lr": 0.01},
            {"params": [self.multiplier], "lr": 0.02, "maximize": True},
        ]

    def begin_step(self, step: int) -> None:
        self.train()

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        x = batch.waveforms
        loss = (self.map(self.dropout(x)) - x[:, :4]).square().mean()
        if self.poison is not None and step >= self.poison:
            loss = loss * float("nan")
        return {"loss": loss + self.multiplier * 0.1, "fit": loss.detach()}

    def validation_losses(self, batch: Batch) -> dict[str, Tensor]:
        assert not self.training
        return {"loss": self.losses(batch, 0)["fit"], "constant": torch.tensor(2.0)}


def batch_of(name: str, waveforms: Tensor) -> Batch:
    """[B, S] of one utterance's name."""
    utterance = Utterance(name, "c", "p", 0, waveforms.shape[1])
    lengths = torch.full((len(waveforms),), waveforms.shape[1])
    return Batch(BatchPlan((utterance,), (0,), None), waveforms, lengths)


def batches(first: int, share: slice = slice(None)) -> Iterator[tuple[int, list[Batch]]]:
    step = first
    while True:
        g = torch.Generator().manual_seed(step)
        both = [
            batch_of(f"u{step}-{i}", torch.randn(n, 16, generator=g)) for i, n in enumerate((3, 5))
        ]
        yield step, both[share]
        step += 1


def run(folder: Path, settings: Settings = Settings(), toy: Toy | None = None, **kw: Any) -> Any:
    toy = toy or Toy()
    outcome = train(
        toy, batches, settings, seed=1, folder=folder, label="toy", fingerprint="f", **kw
    )
    return toy, outcome


def same(a: TrainingResult, b: TrainingResult) -> bool:
    drop = "audio_per_second"
    strip = [[{k: v for k, v in row.items() if k != drop} for row in o.curve] for o in (a, b)]
    return strip[0] == strip[1]


def test_schedule_warms_up_and_decays_linearly() -> None:
    factors = [
        learning_rate_factor(step, 15_000, 50_000) for step in (0, 1, 15_000, 32_500, 50_000)
    ]
    assert factors == pytest.approx([0, 1 / 15_000, 1, 0.5, 0])


def test_every_group_of_parameters_follows_the_schedule(tmp_path: Path) -> None:
    """The optimiser's own rates at every step: the student's, the gates' and the multipliers'."""
    rates: list[list[float]] = []

    class Watched(torch.optim.AdamW):
        def step(self, closure: Any = None) -> None:
            rates.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "AdamW", Watched)
        run(tmp_path)
    factors = [0, 1 / 3, 2 / 3, *(n / 9 for n in range(9, 0, -1))]
    assert rates == [pytest.approx([0.01 * factor, 0.02 * factor]) for factor in factors]


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_step_without_audio_is_skipped(tmp_path: Path, precision: str) -> None:
    """A process may have no micro-batch in its first step, or a step nothing that can be read."""

    def silent(first: int) -> Iterator[tuple[int, list[Batch]]]:
        for step, read in batches(first):
            yield step, read if step else []

    settings = Settings(precision=precision)
    outcome = train(
        Toy(), silent, settings, seed=1, folder=tmp_path, label="toy", fingerprint="f"
    )  # fmt: skip
    assert outcome.skipped_steps == 1
    assert outcome.curve[-1]["step"] == settings.steps


@pytest.fixture
def terminal() -> Iterator[None]:
    """A hang-up is heard, even where the tests run under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    ("stop_at", "number"),
    [(1, signal.SIGTERM), (5, signal.SIGTERM), (6, signal.SIGHUP), (11, signal.SIGINT)],
)
def test_a_stopped_run_ends_with_the_same_bits(
    tmp_path: Path, stop_at: int, number: signal.Signals
) -> None:
    whole, outcome = run(tmp_path / "whole")

    class Killed(Toy):
        def begin_step(self, step: int) -> None:
            super().begin_step(step)
            if step == stop_at:
                os.kill(os.getpid(), number)

    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "parts", toy=Killed())
    assert stopped.value.code == 128 + number
    resumed, second = run(tmp_path / "parts")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert same(outcome, second)


def test_kill_9_goes_on_from_the_last_checkpoint(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        import skill.training.checkpoints
        from test_loop import Settings, Toy, run
        skill.training.checkpoints._CHECKPOINT_SECONDS = 0.0
        class Killed(Toy):
            def begin_step(self, step):
                super().begin_step(step)
                if step == 7:
                    os.kill(os.getpid(), signal.SIGKILL)
        run(Path(sys.argv[1]), toy=Killed())
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "parts")],
        env=os.environ | {"PYTHONPATH": PATHS},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    whole, outcome = run(tmp_path / "whole")
    resumed, second = run(tmp_path / "parts")
    assert torch.equal(whole.map.weight, resumed.map.weight)
    assert same(outcome, second)


def test_a_damaged_newest_checkpoint_is_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skill.training.checkpoints._CHECKPOINT_SECONDS", 0.0)
    whole, _ = run(tmp_path)
    (tmp_path / "newest.pt").write_bytes(b"half of a file")
    again, _ = run(tmp_path)
    assert "damaged checkpoint skipped" in capsys.readouterr().err
    assert torch.equal(whole.map.weight, again.map.weight)
    bytes_ = bytearray((tmp_path / "newest.pt").read_bytes())
    place = bytes_.index(again.map.weight.detach().numpy().tobytes())
    bytes_[place] ^= 1  # one bit of one weight, which torch itself does not notice
    (tmp_path / "newest.pt").write_bytes(bytes_)
    third, _ = run(tmp_path)
    assert "is not what was written" in capsys.readouterr().err
    assert torch.equal(whole.map.weight, third.map.weight)


def test_a_checkpoint_of_another_run_is_not_resumed(tmp_path: Path) -> None:
    run(tmp_path)
    toy = Toy()
    first = toy.map.weight.clone()
    train(
        toy,
        batches,
        replace(Settings(), steps=1),
        seed=1,
        folder=tmp_path,
        label="toy",
        fingerprint="another",
    )
    assert torch.equal(first, toy.map.weight)  # one step, at the schedule's start: rate 0


def test_bad_steps_are_skipped_counted_and_bounded(tmp_path: Path) -> None:
    class Hiccup(Toy):
        def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
            self.poison = 4 if step == 4 else None
            return super().losses(batch, step)

    toy, outcome = run(tmp_path / "one", toy=Hiccup())
    assert outcome.skipped_steps == 1
    assert torch.isfinite(toy.map.weight).all()
    with pytest.raises(SkillError, match=r"3 steps in a row up to step 7 .*u5-0.*u7-1"):
        run(tmp_path / "many", toy=Toy(poison=5))


def test_a_run_without_one_good_step_is_an_error_however_short(tmp_path: Path) -> None:
    with pytest.raises(SkillError, match=r"all 2 steps had no .*: u0-0, u0-1, u1-0, u1-1"):
        run(tmp_path, Settings(steps=2), Toy(poison=0))


def test_only_micro_batches_without_a_finite_loss_are_named(tmp_path: Path) -> None:
    class Picky(Toy):
        def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
            self.poison = 0 if batch.ids[0].endswith("-1") else None
            return super().losses(batch, step)

    with pytest.raises(SkillError, match=r"utterances: u0-1, u1-1, u2-1$"):
        run(tmp_path, toy=Picky())


def test_validation_marks_the_best_step(tmp_path: Path) -> None:
    """Means over held-out audio, weighted by its length."""

    class Told(Toy):
        losses_of = iter([4.0, 2.0, 0.0, 2.0, 3.0, 1.5])

        def validation_losses(self, batch: Batch) -> dict[str, Tensor]:
            return super().validation_losses(batch) | {"loss": torch.tensor(next(self.losses_of))}

    held_out = [batch_of("a", torch.randn(1, 16)), batch_of("b", torch.randn(3, 16))]
    _, outcome = run(tmp_path, toy=Told(), held_out=held_out)
    assert (outcome.best_step, outcome.best_loss) == (8, 1.5)
    found = [row["validation_loss"] for row in outcome.curve if "validation_loss" in row]
    assert found == [2.5, 1.5, 1.875] and outcome.curve[-1]["validation_constant"] == 2.0
    assert [row["step"] for row in outcome.curve] == [2, 4, 6, 8, 10, 12]


def test_fp16_halves_its_scale_until_gradients_are_finite(tmp_path: Path) -> None:
    """More halvings than bad steps are allowed; the factor makes the first gradients overflow."""

    class Steep(Toy):
        def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
            found = super().losses(batch, step)
            return found | {"loss": found["loss"] * 1e6}

    toy, outcome = run(tmp_path, Settings(steps=60, precision="fp16"), Steep())
    assert 3 < outcome.skipped_steps < 30
    assert torch.isfinite(toy.map.weight).all()
    assert not torch.equal(toy.map.weight, Toy().map.weight)
    saved = torch.load(tmp_path / "newest.pt", weights_only=True)
    assert saved["scaler"]["scale"] < 65536
    with pytest.raises(SkillError, match="3 steps in a row"):
        run(tmp_path / "bad", Settings(precision="fp16"), Toy(poison=5))
    for _ in range(2):  # a run that is resumed at its end is no better
        with pytest.raises(SkillError, match=r"all 3 steps had no finite loss or gradient$"):
            run(tmp_path / "short", Settings(steps=3, precision="fp16"), Steep())


@pytest.mark.parametrize("tf32", [True, False])
def test_the_setting_of_tf32_is_the_parameters(tmp_path: Path, tf32: bool) -> None:
    run(tmp_path, Settings(steps=1, warmup=0, tf32=tf32))
    assert torch.backends.cuda.matmul.allow_tf32 is tf32
    assert torch.backends.cudnn.allow_tf32 is tf32


@pytest.mark.parametrize("precision", ["bf16", "float32", "fp16"])
def test_the_loss_falls_and_the_multiplier_rises(tmp_path: Path, precision: str) -> None:
    toy, outcome = run(tmp_path, Settings(steps=300, warmup=10, precision=precision))
    assert outcome.curve[-1]["fit"] < 0.5 * outcome.curve[0]["fit"]
    assert toy.multiplier > 0


WORKER = """
import sys
from pathlib import Path
import torch.distributed as dist
from test_loop import Settings, Toy, batches
from skill.training.loop import train
from skill.utils.files import write_tensors
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
toy = Toy()
own = lambda first: batches(first, slice(rank, None, world))
train(toy, own, Settings(), seed=1, folder=Path(sys.argv[1]), label="toy", fingerprint="f")
if rank == 0:
    write_tensors(sys.argv[2], toy.state_dict(), {})
"""


def test_two_processes_follow_the_same_curve_as_one(tmp_path: Path) -> None:
    program = tmp_path / "worker.py"
    program.write_text(WORKER)
    out = tmp_path / "two.safetensors"
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *(str(program), str(tmp_path / "two"), str(out)),
        ],
        env=os.environ | {"PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    from skill.utils.files import read_tensors

    toy = Toy()
    run(tmp_path / "one", toy=toy)
    weights, _ = read_tensors(out)
    for name, value in toy.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-5, atol=1e-7)
