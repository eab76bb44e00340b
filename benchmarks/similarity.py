"""How fast, exact and frugal CKA is, beside the bare matrix product and other packages.

    python benchmarks/similarity.py --output similarity.json
    python benchmarks/similarity.py --states 5 --width 128 --frames 2000      # a quick look
    pip install pytorch-cka ckatorch torch-cka repsim                         # the peers; optional

The floor is the bare symmetric product: float32 states that are centred already, one product for
each pair of states and nothing else, or one BLAS call for all (ssyrk), whichever is faster. `bare,
oneDNN` is the same through the library that ours uses, its input laid out beforehand. All
candidates take turns in one process, so that a busy machine harms all alike; medians are compared.
A peer that would take hours is timed on two states, and its time multiplied by the number of pairs
that it computes: `extrapolated`. Memory is the growth of the resident set in a process of its own,
states included, as a multiple of the states' bytes. Axes: L states, N frames, D width.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from skill.similarity.cka import cka
from skill.similarity.streaming import StreamingCKA

PIECE = 300  # frames of one update, an utterance of six seconds
Candidate = Callable[[Tensor], Any]


def make(states: int, frames: int, width: int, mean: float = 0.0, device: str = "cpu") -> Tensor:
    """States [L, N, D] of which neighbours resemble each other, with means up to `mean`."""
    generator = torch.Generator().manual_seed(0)
    result = torch.empty(states, frames, width)
    result[0].normal_(generator=generator)
    for state in range(1, states):
        result[state].normal_(generator=generator).add_(result[state - 1]).mul_(0.7)
    if mean:
        for state in range(states):
            result[state] += mean * torch.rand(width, generator=generator)
    return result.to(device)


def exact(states: Tensor) -> np.ndarray:
    """Unbiased linear CKA in float64 throughout."""
    n = states.shape[1]
    wide = [state.double() - state.double().mean(0) for state in states]
    energy = torch.stack([x.square().sum(1) for x in wide])
    traces = energy.sum(1)
    hsic = torch.empty(len(wide), len(wide), dtype=torch.float64, device=states.device)
    for a, x in enumerate(wide):
        for b, y in enumerate(wide[: a + 1]):
            hsic[a, b] = hsic[b, a] = (x.T @ y).square().sum()
    hsic += torch.outer(traces, traces) / ((n - 1) * (n - 2)) - n / (n - 2) * energy @ energy.T
    scale = hsic.diagonal().rsqrt()
    return (hsic * torch.outer(scale, scale)).cpu().numpy()


def floor_blocks(centred: Tensor) -> None:
    """One product for each pair of states, written over and over to one place."""
    out = torch.empty(centred.shape[2], centred.shape[2], device=centred.device)
    for a in range(len(centred)):
        for b in range(a, len(centred)):
            torch.mm(centred[a].T, centred[b], out=out)


def floor_syrk(joined: np.ndarray) -> None:
    """One symmetric product of all states side by side."""
    from scipy.linalg.blas import ssyrk

    ssyrk(1.0, joined.T)


def bare_onednn(pieces: list[list[Tensor]]) -> None:
    """The products of `floor_blocks` as `cka` has them made, from chunks that lie transposed."""
    for a, left in enumerate(pieces):
        for right in pieces[a:]:
            for x, y in zip(left, right, strict=True):
                linear(x, y)


def streaming(states: Tensor) -> Tensor:
    """Our one-pass CKA, fed utterance by utterance."""
    stream = StreamingCKA()
    for start in range(0, states.shape[1], PIECE):
        stream.update(states[:, start : start + PIECE])
    return stream.result()


def pytorch_cka(states: Tensor) -> Tensor:
    from cka import cka_from_features

    return cka_from_features(states, states)


def ckatorch(states: Tensor) -> Tensor:
    from ckatorch.core import cka_batch

    pairs = [[cka_batch(x[None], y[None]) for y in states] for x in states]
    return torch.tensor(pairs)


def torch_cka(states: Tensor) -> Tensor:
    from torch_cka import CKA

    class Replay(torch.nn.Module):
        """A model whose layers give the stored states."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(torch.nn.Identity() for _ in states)

        def forward(self, index: Tensor) -> None:
            for layer, state in zip(self.layers, states, strict=True):
                layer(state[index])

    names = [f"layers.{index}" for index in range(len(states))]
    one, two = Replay(), Replay()
    device = str(states.device)
    compared = CKA(one, two, "one", "two", names, names, device=device)
    frames = torch.utils.data.TensorDataset(torch.arange(states.shape[1]))
    compared.compare(torch.utils.data.DataLoader(frames, batch_size=len(frames)))
    return compared.export()["CKA"]


def repsim(states: Tensor) -> Any:
    import repsim as package

    return package.cka([state.numpy() for state in states], kernel_type="linear", estimator="song")


# Name: (function, whether it is too slow for all states, pairs that it computes of L states)
PEERS: dict[str, tuple[Candidate, bool, Callable[[int], int]]] = {
    "pytorch-cka": (pytorch_cka, False, lambda count: count**2),
    "ckatorch": (ckatorch, True, lambda count: count**2),
    "torch-cka": (torch_cka, True, lambda count: count**2),
    "repsim": (repsim, True, lambda count: count * (count + 1) // 2),
}


def timed(call: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Seconds and result of one call."""
    start = time.perf_counter()
    result = call()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Median times of all candidates in turns, ratios to the floor, errors against float64."""
    states = make(options.states, options.frames, options.width, device=options.device)
    centred = states - states.mean(1, keepdim=True)
    expected = exact(states)
    calls: dict[str, Callable[[], Any]] = {"floor, pairs": lambda: floor_blocks(centred)}
    if options.device == "cpu":
        joined = np.ascontiguousarray(centred.transpose(0, 1).reshape(options.frames, -1).numpy())
        calls["floor, ssyrk"] = lambda: floor_syrk(joined)
        pieces = [[part.T.contiguous() for part in state.split(1024)] for state in centred]
        calls["bare, oneDNN"] = lambda: bare_onednn(pieces)
    calls |= {"ours, cached": lambda: cka(states), "ours, streaming": lambda: streaming(states)}
    absent: dict[str, str] = {}
    scale: dict[str, float] = {}
    for name in options.peers:
        function, slow, pairs = PEERS[name]
        some = states[:2] if slow else states
        if slow:
            scale[name] = pairs(options.states) / pairs(2)
        try:
            function(states[:2, :64])
        except Exception as error:  # a peer that is absent or broken is reported, not fatal
            absent[name] = f"{type(error).__name__}: {error}"
            continue
        calls[name] = lambda function=function, some=some: function(some)
    times: dict[str, list[float]] = {name: [] for name in calls}
    values: dict[str, Any] = {}
    for round_ in range(options.rounds + 1):
        for name, call in calls.items():
            if name in PEERS and round_ > 1:
                continue
            seconds, value = timed(call, options.device)
            values[name] = value
            if round_ > 0:
                times[name].append(seconds)
    medians = {name: statistics.median(found) for name, found in times.items()}
    floor = min(value for name, value in medians.items() if name.startswith("floor"))
    rows = {}
    for name, value in medians.items():
        value *= scale.get(name, 1.0)
        rows[name] = {"seconds": value, "times_floor": value / floor, "extrapolated": name in scale}
        if name in values and not name.startswith(("floor", "bare")):
            found = np.asarray(torch.as_tensor(values[name]).cpu(), dtype=float)
            part = expected[: len(found), : len(found)]
            rows[name]["largest_error"] = float(np.abs(found - part).max())
    return {"candidates": rows, "absent": absent}


def precision(options: argparse.Namespace) -> dict[str, float]:
    """Largest error for features whose mean is a thousand times their spread."""
    states = make(options.states, options.frames, options.width, 1000.0, options.device)
    expected = exact(states)
    found: dict[str, Any] = {"ours, cached": cka(states), "ours, streaming": streaming(states)}
    for name in set(options.peers) & {"pytorch-cka"}:
        try:
            found[name] = pytorch_cka(states)
        except Exception as error:  # as above
            print(f"{name}: {error}", file=sys.stderr)
    return {name: float(np.abs(v.cpu().numpy() - expected).max()) for name, v in found.items()}


def memory(options: argparse.Namespace) -> dict[str, float]:
    """Peak growth of the resident set while one candidate runs, in bytes and in states."""
    make(2, 64, options.width)
    cka(make(2, 64, options.width))
    base = _resident()
    if options.candidate == "ours, streaming":
        stream, whole = StreamingCKA(), 0
        for start in range(0, options.frames, PIECE):
            piece = make(options.states, min(PIECE, options.frames - start), options.width)
            whole += piece.numel() * piece.element_size()
            stream.update(piece)
        stream.result()
    else:
        states = make(options.states, options.frames, options.width)
        states = states.half() if options.candidate.endswith("half") else states
        whole = states.numel() * states.element_size()
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of making them
        (pytorch_cka if options.candidate == "pytorch-cka" else cka)(states)
    peak = _peak() - base
    return {"peak_bytes": peak, "states_bytes": whole, "ratio": peak / whole}


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def run(arguments: list[str]) -> Any:
    """This program in a process of its own; its last line of output is JSON."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def report(options: argparse.Namespace) -> dict[str, Any]:
    """Everything: speed and errors, precision with large means, memory, growth with frames."""
    shape = ["--states", str(options.states), "--width", str(options.width)]
    shape += ["--threads", str(options.threads), "--device", options.device]
    frames = options.frames
    found = speed(options)
    found["large_means"] = precision(options)
    found["growth"] = {}
    for part in (frames // 4, frames // 2, frames):
        states = make(options.states, part, options.width, device=options.device)
        found["growth"][str(part)] = {
            name: min(timed(lambda call=call, s=states: call(s), options.device)[0] for _ in "123")
            for name, call in {"ours, cached": cka, "ours, streaming": streaming}.items()
        }
    found["memory"] = {}
    cases = [("ours, cached", frames), ("ours, cached, half", frames)]
    cases += [("ours, streaming", frames), ("ours, streaming", 2 * frames)]
    cases += [("pytorch-cka", frames)] if "pytorch-cka" in found["candidates"] else []
    for name, count in cases if options.device == "cpu" else []:
        work = ["--work", "memory", "--candidate", name, "--frames", str(count)]
        found["memory"][f"{name}, {count} frames"] = run([*work, *shape])
    found["setting"] = {
        "states": options.states, "frames": frames, "width": options.width,
        "threads": torch.get_num_threads(), "rounds": options.rounds, "device": options.device,
        "torch": torch.__version__, "load_before": os.getloadavg()[0],
    }  # fmt: skip
    return found


def table(found: dict[str, Any]) -> str:
    """The report for a reader."""
    lines = [f"{'':20} {'seconds':>10} {'x floor':>8} {'error':>9}"]
    for name, row in sorted(found["candidates"].items(), key=lambda item: item[1]["seconds"]):
        error = f"{row['largest_error']:.1e}" if "largest_error" in row else ""
        mark = " (extrapolated)" if row["extrapolated"] else ""
        lines.append(f"{name:20} {row['seconds']:10.3f} {row['times_floor']:8.2f} {error:>9}{mark}")
    lines += [f"{name:20} absent: {why}" for name, why in found["absent"].items()]
    lines += [f"large means: {name}: error {e:.1e}" for name, e in found["large_means"].items()]
    for count, row in found["growth"].items():
        lines.append(f"{count} frames: " + ", ".join(f"{n} {s:.3f} s" for n, s in row.items()))
    for name, row in found["memory"].items():
        lines.append(
            f"memory: {name}: {row['peak_bytes'] / 1e6:.0f} MB, {row['ratio']:.2f} x states"
        )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--states", type=int, default=13)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--work", choices=["report", "memory"], default="report")
    parser.add_argument("--candidate", default="")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.work == "memory":
        print(json.dumps(memory(options)))
        return
    found = report(options)
    print(table(found))
    if options.output:
        options.output.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
