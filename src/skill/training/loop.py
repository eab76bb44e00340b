"""The training loop: schedule, precision, accumulation, several processes, resume, curves.

What is trained is a `Trainable`; the loop knows neither methods nor models. A step is a pure
function of (weights, optimiser, step number): the order of the data and every random draw follow
from the seed and the step's number, so that a run which is stopped at any moment and started again
ends with the same bits as one that was not (on a CPU).

A step has one or more micro-batches. Process r of R takes every R-th of them, and gradients are
averaged over audio, not over micro-batches or processes; a micro-batch's draws (gates, dropout)
follow from its number. How many processes share a step changes nothing but the time it takes.
"""

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from skill.config.training import Training
from skill.data.batches import Batch
from skill.training.checkpoints import Checkpoints, restoring
from skill.training.distributed import average_gradients, gather
from skill.training.precision import autocast, computed
from skill.training.signals import Stopped, signals
from skill.utils.errors import SkillError
from skill.utils.hashing import stable_hash
from skill.utils.progress import track


class Trainable(Protocol):
    """What is trained. Losses have an entry "loss"; every entry goes into the curve."""

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The mean losses of one micro-batch."""

    def validation_losses(self, batch: Batch) -> dict[str, Tensor]:
        """The mean losses of a held-out micro-batch, in evaluation mode."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for AdamW with `lr` (the peak), and `maximize` where it ascends."""

    def begin_step(self, step: int) -> None:
        """Called before a step's first micro-batch."""

    def eval(self) -> Any:
        """Evaluation mode; `begin_step` ends it."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """The inverse."""


@dataclass
class TrainingResult:
    """How a run ended."""

    curve: list[dict[str, float]] = field(default_factory=list)
    skipped_steps: int = 0
    best_step: int | None = None
    best_loss: float = math.inf
    precision: str = "float32"
    """What was computed in (`skill.training.precision.computed`)."""


def learning_rate_factor(step: int, warmup: int, total: int) -> float:
    """Linear warm-up from 0 to 1 over `warmup` steps, then linear decay to 0 at `total`.

    DPHuBERT's schedule, but one step later: step 0 has the factor 0, where the authors' code counts
    its steps from 1. Every parameter group follows it.
    """
    if step < warmup:
        return step / warmup
    return max(0.0, (total - step) / max(1, total - warmup))


def seed_step(seed: int, step: int, micro: int = 0) -> None:
    """Seed torch from (seed, step, micro-batch): its draws depend on no past and no process."""
    torch.manual_seed(stable_hash(f"{seed}/{step}/{micro}") >> 1)


def train(
    trainable: Trainable,
    steps: Callable[[int], Iterable[tuple[int, list[Batch]]]],
    settings: Training,
    *,
    seed: int,
    folder: Path,
    label: str,
    fingerprint: str,
    held_out: Sequence[Batch] = (),
    device: str = "cpu",
) -> TrainingResult:
    """Train to `settings.steps`, from the newest sound checkpoint in `folder` if there is one.

    Args:
        steps: called with the first step that is needed; yields (step, this process's
            micro-batches) in order.
        fingerprint: what the run depends on (parameters, inputs); a checkpoint of another one is
            not resumed.
        held_out: micro-batches whose losses go into the curve as "validation_…".

    Raises:
        SkillError: `settings.max_bad_steps` steps in a row had no finite loss or gradient, or no
            step had one.
        Stopped: a signal came; the state is saved, and the same call goes on from there.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = settings.tf32
    checkpoints = Checkpoints(folder, fingerprint, is_main=rank == 0)
    state, first, result = checkpoints.load(), 0, TrainingResult()
    scaler = torch.amp.GradScaler(device, enabled=settings.precision == "fp16")
    scaler.scale(torch.zeros((), device=device))  # it has no scale before, and a step may be empty
    if state is not None:
        with restoring(folder):
            first, result = state["step"], TrainingResult(**state["result"])
            trainable.load_state_dict(state["trainable"])
            scaler.load_state_dict(state["scaler"])
    result.precision = computed(settings.precision, device)
    if result.precision != settings.precision and rank == 0:
        why = f"this processor only imitates {settings.precision}"
        print(f"{label}: computes in {result.precision}, {why}", file=sys.stderr, flush=True)
    optimizer = torch.optim.AdamW(trainable.parameter_groups(), weight_decay=0.0)
    peaks = [group["lr"] for group in optimizer.param_groups]
    if state is not None:
        with restoring(folder):
            optimizer.load_state_dict(state["optimizer"])
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def save(done: int) -> None:
        checkpoints.save(
            done,
            trainable=trainable.state_dict(),
            optimizer=optimizer.state_dict(),
            scaler=scaler.state_dict(),
            result=vars(result),
        )

    bad: list[str] = []
    bad_steps, audio_since, since = 0, 0, time.monotonic()
    shown: dict[str, float] = {}
    with signals() as stop, track(settings.steps, label, start=first) as progress:
        for step, batches in _until(steps(first), first, settings.steps):
            factor = learning_rate_factor(step, settings.warmup, settings.steps)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            trainable.begin_step(step)
            optimizer.zero_grad(set_to_none=True)
            numbered = zip(count(rank, world), batches)
            figures, audio, suspects = _accumulate(
                trainable, numbered, (seed, step), settings, scaler, device
            )
            audio = average_gradients(parameters, audio, figures)
            scaler.unscale_(optimizer)
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.clip))
            figures["gradient_norm"] = norm
            if math.isfinite(figures.get("loss", math.nan)) and math.isfinite(norm):
                scaler.step(optimizer)
                bad, bad_steps = [], 0
            elif scaler.get_scale() > 1 and math.isfinite(figures.get("loss", math.nan)):
                result.skipped_steps += 1  # the scale was too large: `update` halves it
            else:
                result.skipped_steps += 1
                bad_steps += 1
                ids = [name for batch in batches for name in batch.ids]
                named = [name for names in gather(suspects) for name in names]
                bad += named or [name for names in gather(ids) for name in names]
                if bad_steps >= settings.max_bad_steps:
                    raise _not_finite(label, f"{bad_steps} steps in a row up to step {step}", bad)
            scaler.update()
            audio_since += audio
            done = step + 1
            if done % settings.log_every == 0 or done == settings.steps:
                seconds = time.monotonic() - since
                figures["audio_per_second"] = audio_since / 16000 / seconds
                audio_since, since = 0, time.monotonic()
                row = {"step": float(done), "learning_rate": peaks[0] * factor} | figures
                if held_out and (done % settings.validate_every == 0 or done == settings.steps):
                    seed_step(seed, 0)
                    row |= validation(trainable, held_out, settings.precision, device)
                    if row["validation_loss"] < result.best_loss:
                        result.best_loss, result.best_step = row["validation_loss"], done
                    since = time.monotonic()
                result.curve.append(row)
                columns = ("loss", "sparsity", "audio_per_second")
                shown = {key: row[key] for key in columns if key in row}
            progress.update(done, **shown)
            number = stop.agreed()
            if number or checkpoints.due():
                save(done)
            if number:
                print(f"{label}: stopped at step {done}, state saved", file=sys.stderr, flush=True)
                raise Stopped(128 + number)
        if 0 < settings.steps <= result.skipped_steps:
            raise _not_finite(label, f"all {settings.steps} steps", bad)
        save(settings.steps)
    return result


def _not_finite(label: str, steps: str, utterances: list[str]) -> SkillError:
    names = f"; their utterances: {', '.join(sorted(set(utterances))[:20])}" if utterances else ""
    return SkillError(f"{label}: {steps} had no finite loss or gradient{names}")


def validation(
    trainable: Trainable, held_out: Sequence[Batch], precision: str, device: str
) -> dict[str, float]:
    """Mean losses over held-out audio, as "validation_…"."""
    trainable.eval()
    sums: dict[str, float] = {}
    for batch in held_out:
        with torch.no_grad(), autocast(precision, device):
            losses = trainable.validation_losses(batch)
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value) * batch.audio
    audio = sum(batch.audio for batch in held_out)
    return {f"validation_{name}": total / audio for name, total in sums.items()}


def _accumulate(
    trainable: Trainable,
    batches: Iterable[tuple[int, Batch]],
    seeds: tuple[int, int],
    settings: Training,
    scaler: torch.amp.GradScaler,
    device: str,
) -> tuple[dict[str, float], int, list[str]]:
    """Add up gradients and losses of the numbered micro-batches, each weighted by its audio.

    Third, the utterances of those micro-batches whose loss is not finite.
    """
    sums: dict[str, float] = {}
    suspects: list[str] = []
    audio = 0
    for number, batch in batches:
        seed_step(*seeds, number)
        with autocast(settings.precision, device):
            losses = trainable.losses(batch, seeds[1])
        weight = batch.audio / 16000
        scaler.scale(losses["loss"] * weight).backward()
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach()) * weight
        if not math.isfinite(float(losses["loss"].detach())):
            suspects += batch.ids
        audio += batch.audio
    return sums, audio, suspects


def _until(
    steps: Iterable[tuple[int, list[Batch]]], first: int, last: int
) -> Iterator[tuple[int, list[Batch]]]:
    if first >= last:
        return
    for step, batches in steps:
        yield step, batches
        if step + 1 >= last:
            return
