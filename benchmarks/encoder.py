"""How fast and frugal the encoder is, beside `transformers` and pruned to a quarter.

    OMP_NUM_THREADS=2 python benchmarks/encoder.py --output encoder.json
    python benchmarks/encoder.py --size small --repeats 3           # a quick look

All candidates take turns in one process, in an order that changes from round to round, so that a
busy machine harms all alike. A ratio is the median of the ratios within each round; its spread is
the quartiles of them. Everything keeps all hidden states, as both sides do by default; the line
`iterated` is ours when only one state is held at a time. Memory of a forward: on a CPU the growth
of the resident set's peak in a process of its own, on a GPU the growth of the allocator's peak.

The two students hold a quarter of the parameters: `even` keeps the same share of every convolution,
attention and feed-forward layer; `conv 80 %` keeps 80 % of the channels and less of the rest.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skill.encoder import EncoderConfig, Family, SpeechEncoder

SHAPES = ((1, 10), (4, 5))  # utterances, seconds
FAMILIES: tuple[Family, ...] = ("wavlm", "hubert")
KINDS = ("ours", "iterated", "transformers", "student even", "student conv 80 %")
AIMS = {("wavlm", "transformers"): 1.3, ("hubert", "transformers"): 1.1}
STUDENT_AIM = 3.5
Forward = Callable[[Tensor], Any]


def configuration(family: Family, size: str) -> EncoderConfig:
    """Base, or the width of the peers' small models."""
    if size == "base":
        return EncoderConfig.base(family)
    return EncoderConfig.uniform(family, width=192, blocks=12, heads=4, ffn=768, conv=128)


def parameters(config: EncoderConfig) -> int:
    """The size of a model, without building it."""
    with torch.device("meta"):
        return SpeechEncoder(config).num_parameters()


def student(teacher: EncoderConfig, conv: float | None) -> EncoderConfig:
    """A quarter of the teacher: `conv` of the channels (None: the same share as elsewhere)."""

    def kept(share: float) -> EncoderConfig:
        channels = share if conv is None else conv
        return replace(
            teacher,
            conv_channels=tuple(round(channels * n) for n in teacher.conv_channels),
            conv_masked=True,
            heads=tuple(h[: round(share * len(h))] for h in teacher.heads),
            ffn=tuple(round(share * n) for n in teacher.ffn),
        )

    goal, low, high = parameters(teacher) / 4, 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if parameters(kept(middle)) < goal else (low, middle)
    return kept(low)


def peer(config: EncoderConfig) -> nn.Module:
    """The same architecture in `transformers`, random weights."""
    import transformers

    names = {"wavlm": "WavLM", "hubert": "Hubert", "wav2vec2": "Wav2Vec2"}
    name = names[config.family]
    written = getattr(transformers, f"{name}Config")(
        hidden_size=config.width,
        num_hidden_layers=config.num_blocks,
        num_attention_heads=config.total_heads,
        intermediate_size=config.ffn[0],
        conv_dim=list(config.conv_channels),
    )
    model: nn.Module = getattr(transformers, f"{name}Model")(written)
    return model


def build(kind: str, family: Family, size: str, device: str) -> Forward:
    """A forward in evaluation mode that keeps all states (`iterated`: one)."""
    config = configuration(family, size)
    if kind == "transformers":
        theirs = peer(config).eval().to(device)
        return lambda waveforms: theirs(waveforms, output_hidden_states=True).hidden_states
    if kind.startswith("student"):
        config = student(config, 0.8 if "conv" in kind else None)
    ours = SpeechEncoder(config).eval().to(device)
    if kind == "iterated":
        return lambda waveforms: [None for _ in ours.iterate(waveforms)]
    return ours


def autocast(device: str, dtype: str) -> Any:
    """bfloat16 autocast, or nothing for float32."""
    return torch.autocast(device, torch.bfloat16) if dtype == "bf16" else nullcontext()


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def timed(forward: Forward, waveforms: Tensor, device: str, dtype: str) -> float:
    """Seconds of one forward."""
    synchronize(device)
    start = time.perf_counter()
    with torch.inference_mode(), autocast(device, dtype):
        forward(waveforms)
    synchronize(device)
    return time.perf_counter() - start


def speeds(family: Family, size: str, device: str, dtype: str, repeats: int) -> list[dict]:
    """Seconds of every kind at every shape, the kinds alternating."""
    kinds = [kind for kind in KINDS if kind != "iterated"]
    forwards = {kind: build(kind, family, size, device) for kind in kinds}
    order = random.Random(0)
    rows = []
    for utterances, seconds in SHAPES:
        waveforms = torch.randn(utterances, seconds * 16000, device=device)
        for forward in forwards.values():
            timed(forward, waveforms, device, dtype)
        rounds: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(repeats):
            for kind in order.sample(kinds, len(kinds)):
                rounds[kind].append(timed(forwards[kind], waveforms, device, dtype))
        for kind in kinds:
            # How much faster ours is than the peer, and a student than its teacher.
            over, under = (kind, "ours") if kind == "transformers" else ("ours", kind)
            ratios = [a / b for a, b in zip(rounds[over], rounds[under], strict=True)]
            aim = AIMS.get((family, kind), STUDENT_AIM if kind == "student even" else None)
            rows.append(
                {
                    "family": family,
                    "kind": kind,
                    "batch": f"{utterances} x {seconds} s",
                    "dtype": dtype,
                    "seconds": statistics.median(rounds[kind]),
                    "seconds_quartiles": quartiles(rounds[kind]),
                    "ratio": None if kind == "ours" else statistics.median(ratios),
                    "ratio_quartiles": None if kind == "ours" else quartiles(ratios),
                    "aim": aim,
                }
            )
    return rows


def quartiles(values: Sequence[float]) -> list[float]:
    """First and third quartile."""
    if len(values) < 2:
        return [values[0], values[0]]
    cuts = statistics.quantiles(values, n=4, method="inclusive")
    return [cuts[0], cuts[2]]


def status(field: str) -> int:
    """Bytes in a field of this process's status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def growth(kind: str, family: Family, size: str, shape: tuple[int, int], device: str) -> int:
    """Bytes that one forward adds to the peak of this process, beyond its weights."""
    forward = build(kind, family, size, device)
    utterances, seconds = shape
    waveforms = torch.randn(utterances, seconds * 16000, device=device)
    timed(forward, waveforms[:1, :16000], device, "float32")
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        timed(forward, waveforms, device, "float32")
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = status("VmRSS")
    timed(forward, waveforms, device, "float32")
    return status("VmHWM") - before


def memory(family: Family, size: str, device: str) -> list[dict]:
    """`growth` of every kind and shape, each in a fresh process."""
    rows = []
    for utterances, seconds in SHAPES:
        found = {}
        for kind in KINDS:
            command = [sys.executable, __file__, "--size", size, "--device", device, "--growth"]
            command += [kind, family, str(utterances), str(seconds)]
            # Large blocks go back to the system when they are freed: a peak is then a real one.
            environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
            run = subprocess.run(
                command, env=environment, check=True, capture_output=True, text=True
            )
            found[kind] = int(run.stdout)
        for kind, grown in found.items():
            rows.append(
                {
                    "family": family,
                    "kind": kind,
                    "batch": f"{utterances} x {seconds} s",
                    "mebibytes": grown / 2**20,
                    "of_peer": grown / found["transformers"],
                }
            )
    return rows


def profile(kind: str, family: Family, size: str, device: str, dtype: str) -> list[dict]:
    """Which operations a forward of 1 x 10 s spends its time in, largest first."""
    forward = build(kind, family, size, device)
    waveforms = torch.randn(1, 160000, device=device)
    timed(forward, waveforms, device, dtype)
    with torch.profiler.profile() as trace:
        timed(forward, waveforms, device, dtype)
    field = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    events = trace.key_averages()
    total = sum(getattr(event, field) for event in events)
    largest = sorted(events, key=lambda event: getattr(event, field), reverse=True)
    return [
        {
            "family": family,
            "kind": kind,
            "dtype": dtype,
            "operation": event.key,
            "calls": event.count,
            "milliseconds": getattr(event, field) / 1000,
            "share": getattr(event, field) / total,
        }
        for event in largest[:10]
    ]


def show(result: dict[str, Any]) -> None:
    """The tables."""
    print(f"\n{'forward':34}{'dtype':9}{'batch':10}{'seconds':>9}  ratio [quartiles]   aim")
    for row in result["speed"]:
        line = f"{row['family'] + ' ' + row['kind']:34}{row['dtype']:9}{row['batch']:10}"
        line += f"{row['seconds']:9.4f}"
        if row["ratio"] is not None:
            low, high = row["ratio_quartiles"]
            line += f"  {row['ratio']:5.2f} [{low:.2f}, {high:.2f}]"
            line += f"   {row['aim']}" if row["aim"] else ""
        print(line)
    print("ratio: ours beside transformers, a student beside its teacher; above 1 is faster")
    print(f"\n{'memory of a forward, float32':43}{'batch':10}{'MiB':>8}  of the peer's")
    for row in result["memory"]:
        print(
            f"{row['family'] + ' ' + row['kind']:43}{row['batch']:10}"
            f"{row['mebibytes']:8.0f}  {row['of_peer']:.2f}"
        )
    print(f"\n{'profile, 1 x 10 s':60}{'ms':>8}  share  calls")
    for row in result["profile"]:
        name = f"{row['family']} {row['kind']} {row['dtype']}: {row['operation'][:36]}"
        print(f"{name:60}{row['milliseconds']:8.1f}  {row['share']:5.1%}  {row['calls']}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("base", "small"), default="base")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bf16"))
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--output", type=Path, help="JSON of all figures")
    parser.add_argument("--growth", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtypes = options.dtypes or (["float32", "bf16"] if device == "cuda" else ["float32"])
    torch.manual_seed(0)
    if options.growth:
        kind, family, utterances, seconds = options.growth
        print(growth(kind, family, options.size, (int(utterances), int(seconds)), device))
        return
    result: dict[str, Any] = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "size": options.size,
        "repeats": options.repeats,
        "speed": [],
        "memory": [],
        "profile": [],
    }
    for family in options.families:
        for dtype in dtypes:
            result["speed"] += speeds(family, options.size, device, dtype, options.repeats)
            for kind in ("ours", "student even"):
                result["profile"] += profile(kind, family, options.size, device, dtype)
        result["memory"] += memory(family, options.size, device)
    show(result)
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
