"""How fast and frugal a step of stage 1 is: teacher, gated student, loss, backward, update.

    OMP_NUM_THREADS=2 python benchmarks/training.py --output training.json
    python benchmarks/training.py --size sample --rounds 3        # a quick look
    python benchmarks/training.py --peer FOLDER     # of https://github.com/pyf98/DPHuBERT

Candidates take turns in one process, in an order that changes from round to round, so that a busy
machine harms all alike; figures are medians with quartiles. A step without a further word is one of
a stage's first, with gates as they begin. `closed` is one after the sparsity has risen: gates on
three quarters of the student are mostly drawn shut, and what is shut is not computed. `split`: a
micro-batch per utterance (`micro_seconds`). In each round the machine's bare matrix product is
timed, too: the share is the step's multiplications, counted by torch, over the time that the
product would take for as many. Memory stays with the process from step to step, as in `python -m
skill`. Peak memory: on a CPU the resident set's peak in a process of its own, on a GPU the
allocator's.

On a GPU the batch grows in doublings until 80 GB are full. bf16 is left out where the processor
would only imitate it.

The peer is DPHuBERT's own code (`dphubert.py`). With `--peer` it takes turns with ours on the same
batch, and a row is compared with the peer in its precision: the median over the rounds of the
ratios within each, with quartiles, the peaks, and the multiplications for a second of audio. The
peer computes as much late in a stage as at its beginning. Without `--peer` it is what was once
measured elsewhere: two cores, float32, 4 x 5 s (WavLM Base 2.43 audio seconds per second, 5.4 GB).
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from dphubert import Peer
from encoder import quartiles
from torch.nn.functional import linear
from torch.utils.flop_counter import (
    FlopCounterMode,
    flop_registry,
    sdpa_flop,
)

from skill.config.methods import Distances, LayerTarget, Method
from skill.config.params import Stage1
from skill.data.batches import Batch, BatchPlan
from skill.distillation import gates
from skill.distillation.distiller import Distiller
from skill.distillation.sparsity import SparsityTarget
from skill.distillation.student import start_student
from skill.distillation.targets import build_targets
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.encoder.checkpoint import load_encoder
from skill.training import launch
from skill.training.precision import computed
from skill.utils.files import checkout_path

DPHUBERT = Method(
    prune=("conv", "head", "ffn"),
    targets=(
        LayerTarget(layer="projection"),
        *(LayerTarget(layer=layer, projection="blocks") for layer in (4, 8, 12)),
    ),
    distances=Distances(l1=1.0, cosine=1.0),
)
KINDS = (
    *("float32", "float32 closed", "float32 split", "float32 closed split"),
    *("bf16", "bf16 closed"),
)
PEER_KINDS = ("float32 peer", "bf16 peer")
CPU_BATCH, GPU_SECONDS, GPU_BYTES = (4, 5), 10, 80e9
PEER = {"wavlm": (2.43, 5.4e9), "hubert": (2.83, 5.1e9)}  # Base on the CPU, float32
AIMS = {"float32": 1.4, "float32 closed": 2.0}
OPEN, SHUT = 4.6, -5.5  # log α as a stage begins, and where closed gates were found in the middle
RATE = 1e-6
GPU_AIM = 4000.0
MEMORY_AIM = 0.6
# torch counts fused attention on GPUs only.
flop_registry[torch.ops.aten._scaled_dot_product_flash_attention_for_cpu] = sdpa_flop


@dataclass
class Step:
    """One candidate, ready to do steps on its batch."""

    experiment: Distiller | Peer
    optimizer: torch.optim.AdamW
    batches: list[Batch]
    precision: str
    device: str

    def __call__(self) -> None:
        half = torch.bfloat16 if self.precision == "bf16" else None
        self.experiment.begin_step(0)
        self.optimizer.zero_grad(set_to_none=True)
        for batch in self.batches:
            with torch.autocast(self.device, half) if half else nullcontext():
                loss = self.experiment.losses(batch, 1)["loss"]
            (loss / len(self.batches)).backward()
        torch.nn.utils.clip_grad_norm_(self.experiment.parameters(), 10.0)
        self.optimizer.step()
        if self.device == "cuda":
            torch.cuda.synchronize()


def configuration(size: str, family: Any) -> EncoderConfig:
    """Base, or that of the stored sample teacher."""
    if size == "base":
        return EncoderConfig.base(family)
    return load_encoder(checkout_path(f"data/teachers/{family}-sample.safetensors")).config


def quarter(config: EncoderConfig) -> EncoderConfig:
    """What is left when three quarters of the parameters are gone evenly."""

    def kept(share: float) -> EncoderConfig:
        return replace(
            config,
            conv_channels=tuple(max(1, round(share * n)) for n in config.conv_channels),
            conv_masked=True,
            heads=tuple(h[: round(share * len(h))] for h in config.heads),
            ffn=tuple(round(share * n) for n in config.ffn),
        )

    def size(config: EncoderConfig) -> int:
        with torch.device("meta"):
            return SpeechEncoder(config).num_parameters()

    goal, low, high = size(config) / 4, 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if size(kept(middle)) < goal else (low, middle)
    return kept(low)


@torch.no_grad()
def close(student: SpeechEncoder, left: EncoderConfig) -> None:
    """Give every module's gates the log α of as many open ones as `left` has units."""
    gated: list[Any] = [
        *student.convolutions,
        *(block.attention for block in student.blocks),
        *(block.feed_forward for block in student.blocks),
    ]
    counts = [*left.conv_channels, *map(len, left.heads), *left.ffn]
    for module, count in zip(gated, counts, strict=True):
        module.gate.log_alpha.fill_(SHUT)
        module.gate.log_alpha[:count] = OPEN


def random_teacher(size: str, family: str, device: str) -> SpeechEncoder:
    """A teacher whose weights say nothing."""
    return SpeechEncoder(configuration(size, family)).eval().to(device)


shared_teacher = cache(random_teacher)  # one for all of ours, or ten candidates need 30 GB


def ours(kind: str, teacher: SpeechEncoder, options: argparse.Namespace) -> Distiller:
    """Our stage 1."""
    config = teacher.config
    student = start_student(teacher, None).to(options.device)
    gates.attach(student, DPHUBERT.prune)
    target = SparsityTarget(student, 0.75, ramp=0).to(options.device)
    if "closed" in kind:
        close(student, quarter(config))
    stage = Stage1(
        steps=1, warmup=0, learning_rate=RATE, gate_learning_rate=RATE, compile=options.compile
    )
    targets = build_targets(DPHUBERT, {"t": (12, config.width)})
    return Distiller(student, {"t": teacher}, targets, DPHUBERT, stage, target)


def build(kind: str, options: argparse.Namespace, batch: tuple[int, int]) -> Step:
    """A candidate with random weights on `batch` = (utterances, seconds) of noise."""
    torch.manual_seed(0)
    utterances, seconds = batch
    each = 1 if "split" in kind else utterances
    waveforms = torch.randn(utterances, seconds * 16000, device=options.device)
    batches = [
        Batch(BatchPlan((), (), None), part, torch.full((each,), seconds * 16000))
        for part in waveforms.split(each)
    ]
    about = options.size, options.family, options.device
    experiment: Distiller | Peer
    if kind in PEER_KINDS:  # it makes a teacher of its own from ours, which is then let go
        experiment = Peer(options.peer, random_teacher(*about), RATE)
    else:
        experiment = ours(kind, shared_teacher(*about), options)
    experiment.to(options.device)
    optimizer = torch.optim.AdamW(experiment.parameter_groups(), weight_decay=0.0)
    return Step(experiment, optimizer, batches, kind.split()[0], options.device)


def product(precision: str, device: str) -> tuple[Callable[[], None], float]:
    """A bare matrix product by the faster library, and its multiplications and additions."""
    size = 8192 if device == "cuda" else 2048
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def multiply() -> None:
        linear(a, b)
        if device == "cuda":
            torch.cuda.synchronize()

    return multiply, 2.0 * size**3


def seconds_of(work: Callable[[], None], times: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - start) / times


def largest(kind: str, options: argparse.Namespace) -> tuple[int, int]:
    """The largest doubling of a batch that stays within 80 GB."""
    utterances = 8
    while True:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        try:
            build(kind, options, (2 * utterances, GPU_SECONDS))()
        except torch.cuda.OutOfMemoryError:
            return utterances, GPU_SECONDS
        if torch.cuda.max_memory_allocated() > GPU_BYTES:
            return utterances, GPU_SECONDS
        utterances *= 2


def peak_memory(kind: str, options: argparse.Namespace, batch: tuple[int, int]) -> int:
    """Bytes at the peak of two steps; the rest of the program (torch itself) is included."""
    if options.device == "cuda":
        step = build(kind, options, batch)
        torch.cuda.reset_peak_memory_stats()
        step(), step()
        return torch.cuda.max_memory_allocated()
    command = [sys.executable, __file__, "--size", options.size, "--family", options.family]
    command += ["--device", "cpu", "--peak", kind, *(["--compile"] if options.compile else [])]
    command += ["--peer", str(options.peer)] if options.peer else []
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(run.stdout)


def resident_peak() -> int:
    """Bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for every kind."""
    cuda = options.device == "cuda"
    batches = {k: largest(k, options) if cuda else CPU_BATCH for k in options.kinds}
    # Before the candidates fill this process: they do not fit beside another one.
    memory = {kind: peak_memory(kind, options, batches[kind]) for kind in options.kinds}
    steps = {kind: build(kind, options, batches[kind]) for kind in options.kinds}
    operations = {}
    for kind, step in steps.items():
        step()
        with FlopCounterMode(display=False) as counter:
            step()
        operations[kind] = float(counter.get_total_flops())
    products = {p: product(p, options.device) for p in {kind.split()[0] for kind in steps}}
    times: dict[str, list[float]] = {kind: [] for kind in steps}
    shares: dict[str, list[float]] = {kind: [] for kind in steps}
    peaks: dict[str, list[float]] = {kind: [] for kind in steps}
    order = random.Random(0)
    for _ in range(options.rounds):
        for kind in order.sample(list(steps), len(steps)):
            multiply, work = products[kind.split()[0]]
            peak = work / seconds_of(multiply, 5)
            taken = seconds_of(steps[kind])
            times[kind].append(taken)
            peaks[kind].append(peak)
            shares[kind].append(operations[kind] / taken / peak)
    audio = {kind: utterances * seconds for kind, (utterances, seconds) in batches.items()}
    speeds = {kind: [audio[kind] / taken for taken in times[kind]] for kind in steps}
    rows = []
    for kind in steps:
        utterances, seconds = batches[kind]
        row = {
            "kind": kind,
            "batch": f"{utterances} x {seconds} s",
            "seconds": statistics.median(times[kind]),
            "audio_per_second": statistics.median(speeds[kind]),
            "audio_per_second_quartiles": quartiles(speeds[kind]),
            "times_float32": statistics.median(ratios(speeds[kind], speeds[options.kinds[0]])),
            "operations": operations[kind],
            "product_per_second": statistics.median(peaks[kind]),
            "share_of_product": statistics.median(shares[kind]),
            "peak_bytes": memory[kind],
        }
        if options.peer:
            peer = peer_of(kind)
            faster = ratios(speeds[kind], speeds[peer])
            row["times_peer"] = statistics.median(faster)
            row["times_peer_quartiles"] = quartiles(faster)
            work, others = (operations[k] / audio[k] for k in (kind, peer))
            row["operations_of_peer"] = work / others
        rows.append(row)
    compare(rows, options)
    return rows


def ratios(speeds: list[float], others: list[float]) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(speeds, others, strict=True)]


def peer_of(kind: str) -> str:
    """The peer in the same precision."""
    return f"{kind.split()[0]} peer"


def compare(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Put the peer's memory and what the issue asks for beside what was found."""
    cuda, base = options.device == "cuda", options.size == "base" and not options.compile
    peaks = {row["kind"]: row["peak_bytes"] for row in rows}
    aims = {"bf16": GPU_AIM} if cuda else AIMS
    for row in rows:
        if base:
            row["aim"] = aims.get(row["kind"])
        if cuda:  # batches differ, and with them what a peak means
            continue
        if options.peer:
            row["memory_of_peer"] = row["peak_bytes"] / peaks[peer_of(row["kind"])]
        elif base:
            speed, memory = PEER[options.family]
            row["times_peer"] = row["audio_per_second"] / speed
            row["memory_of_peer"] = row["peak_bytes"] / memory
        if base:
            row["memory_aim"] = MEMORY_AIM


def table(result: dict[str, Any]) -> str:
    """What is printed."""
    lines = [f"{result['device']}, {result['threads']} threads, load {result['load']:.1f}"]
    if result["left_out"]:
        lines.append(f"left out, this processor only imitates it: {', '.join(result['left_out'])}")
    title = f"{'stage 1 step':22}{'batch':>12}{'s':>9}{'audio s/s':>11}  quartiles"
    beside = f"  {'quartiles':14}{'of its GB':>10}{'of its products':>17}"
    beside = beside if result["peer_measured"] else ""
    lines.append(f"{title:70}{'GB':>6}{'of product':>12}{'x peer':>8}{beside}  aim")
    for row in result["steps"]:
        low, high = row["audio_per_second_quartiles"]
        line = f"{row['kind']:22}{row['batch']:>12}{row['seconds']:9.3f}"
        line += f"{row['audio_per_second']:11.2f}  [{low:.2f}, {high:.2f}]"
        line = f"{line:70}{row['peak_bytes'] / 1e9:6.2f}{row['share_of_product']:12.1%}"
        line += f"{row['times_peer']:8.2f}" if "times_peer" in row else f"{'':8}"
        if result["peer_measured"]:
            low, high = row["times_peer_quartiles"]
            line += f"  {f'[{low:.2f}, {high:.2f}]':14}"
            line += f"{row['memory_of_peer']:10.1%}" if "memory_of_peer" in row else f"{'':10}"
            line += f"{row['operations_of_peer']:17.1%}"
        lines.append(line + (f"  {row['aim']}" if row.get("aim") else ""))
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("base", "sample"), default="base")
    parser.add_argument("--family", choices=("wavlm", "hubert"), default="wavlm")
    parser.add_argument("--kinds", nargs="+", choices=KINDS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--compile", action="store_true", help="compiled blocks")
    parser.add_argument("--peer", type=Path, metavar="FOLDER", help="a checkout of DPHuBERT")
    parser.add_argument("--output", type=Path, help="JSON of all figures")
    parser.add_argument("--peak", choices=(*KINDS, *PEER_KINDS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer and not (options.peer / "wav2vec2/model.py").is_file():
        parser.error(f"{options.peer} is no checkout of DPHuBERT")
    launch.keep_freed_memory()
    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if options.peak:
        step = build(options.peak, options, CPU_BATCH)
        step(), step()
        print(resident_peak())
        return
    precisions = {kind: kind.split()[0] for kind in options.kinds or KINDS}
    options.kinds = [k for k, p in precisions.items() if computed(p, options.device) == p]
    left_out = [kind for kind in precisions if kind not in options.kinds]
    if options.peer:
        options.kinds += dict.fromkeys(map(peer_of, options.kinds))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    result = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name()
        if options.device == "cuda"
        else f"cpu ({torch.backends.cpu.get_cpu_capability()})",
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "size": options.size,
        "family": options.family,
        "compiled": options.compile,
        "rounds": options.rounds,
        "left_out": left_out,
        "peer_measured": options.peer is not None,
        "steps": measure(options),
    }
    print(table(result))
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
