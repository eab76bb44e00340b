"""Size and speed of what people take home: a teacher, its student, and the student in int8.

    python benchmarks/export.py --output export.json
    python benchmarks/export.py --size small --repeats 3            # a quick look

Random weights; the student keeps the same share of every layer, a quarter of the parameters. All
candidates take turns, in an order that changes from round to round, so that a busy machine harms
all alike. A ratio is the median of the teacher's seconds in torch over the candidate's within each
round; its spread is the quartiles. A real-time factor is seconds of computing per second of audio.
Agreement is the worst state's distance from torch, as a share of its norm; with random weights,
rounding to int8 does more harm than with trained ones.

`--model` measures an encoder of yours as the student, its teacher being what `--teacher` says.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from encoder import configuration, quartiles, student

import skill
from skill.encoder import SpeechEncoder
from skill.encoder.formats import onnx_runtime
from skill.utils.files import write_tensors

AIMS = {"student, ONNX": 3.5, "student, ONNX int8": 6.0}
Forward = Callable[[], Any]


def candidates(
    teacher: SpeechEncoder, small: SpeechEncoder, folder: Path, threads: int, seconds: float
) -> dict[str, Forward]:
    """A forward of 1 utterance for every candidate, all states."""
    waveforms = 0.1 * torch.randn(1, round(16000 * seconds))
    inputs = {"waveforms": waveforms.numpy(), "lengths": torch.tensor([waveforms.shape[1]]).numpy()}
    found: dict[str, Forward] = {
        "teacher, torch": lambda: teacher(waveforms),
        "student, torch": lambda: small(waveforms),
    }
    for who in ("teacher", "student"):
        for name, file in (("ONNX", onnx_runtime.FLOAT), ("ONNX int8", onnx_runtime.INT8)):
            if (folder / who / file).exists():
                session = onnx_runtime.session(folder / who / file, threads)
                found[f"{who}, {name}"] = lambda session=session: session.run(None, inputs)
    return found


def timed(forward: Forward) -> float:
    start = time.perf_counter()
    with torch.inference_mode():
        forward()
    return time.perf_counter() - start


def speeds(forwards: dict[str, Forward], threads: int, repeats: int, seconds: float) -> list[dict]:
    """Seconds of every candidate, alternating."""
    torch.set_num_threads(threads)
    order = random.Random(0)
    for forward in forwards.values():
        timed(forward)
    rounds: dict[str, list[float]] = {kind: [] for kind in forwards}
    for _ in range(repeats):
        for kind in order.sample(list(forwards), len(forwards)):
            rounds[kind].append(timed(forwards[kind]))
    rows = []
    for kind, taken in rounds.items():
        ratios = [a / b for a, b in zip(rounds["teacher, torch"], taken, strict=True)]
        rows.append(
            {
                "kind": kind,
                "threads": threads,
                "real_time_factor": statistics.median(taken) / seconds,
                "real_time_factor_quartiles": [q / seconds for q in quartiles(taken)],
                "ratio": statistics.median(ratios),
                "ratio_quartiles": quartiles(ratios),
                "aim": AIMS.get(kind),
            }
        )
    return rows


def sizes(encoders: dict[str, SpeechEncoder], folder: Path) -> list[dict]:
    """Megabytes of every file, and how far its states are from torch's. Writes the files."""
    rows = []
    for who, encoder in encoders.items():
        plain = folder / f"{who}.safetensors"
        write_tensors(plain, encoder.state_dict(), {})
        found = {plain: 0.0}
        found |= {folder / who / f: d for f, d in onnx_runtime.write(encoder, folder / who).items()}
        names = (f"{who}, torch", f"{who}, ONNX", f"{who}, ONNX int8")
        for name, (file, distance) in zip(names, found.items(), strict=True):
            megabytes = file.stat().st_size / 1e6
            rows.append(
                {
                    "kind": name,
                    "parameters": encoder.num_parameters(),
                    "megabytes": megabytes,
                    "from_torch": distance,
                }
            )
    return rows


def show(result: dict[str, Any]) -> None:
    """The tables."""
    print(f"\n{'model':22}{'parameters':>12}{'MB':>8}  from torch")
    for row in result["sizes"]:
        line = f"{row['kind']:22}{row['parameters']:12,}{row['megabytes']:8.1f}"
        print(line + f"  {row['from_torch']:.1e}")
    print(f"\n{'model':22}threads  real-time factor  faster than the teacher in torch   aim")
    for row in result["speed"]:
        low, high = row["ratio_quartiles"]
        line = f"{row['kind']:22}{row['threads']:7}{row['real_time_factor']:18.4f}"
        line += f"  {row['ratio']:5.2f} [{low:.2f}, {high:.2f}]"
        print(line + (f"{row['aim']:23}" if row["aim"] else ""))
    if result["load"] > 0.5:
        print(
            f"\nThe machine was busy: a load of {result['load']:.1f} before the first measurement."
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("base", "small"), default="base")
    parser.add_argument("--family", choices=("wavlm", "hubert", "wav2vec2"), default="wavlm")
    parser.add_argument("--model", help="a student instead of one with random weights")
    parser.add_argument("--teacher", help="its teacher")
    parser.add_argument("--seconds", type=float, default=10.0, help="of audio")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--output", type=Path, help="JSON of all figures")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    torch.manual_seed(0)
    shape = configuration(options.family, options.size)
    teacher = skill.load(options.teacher) if options.teacher else SpeechEncoder(shape).eval()
    small = (
        skill.load(options.model)
        if options.model
        else SpeechEncoder(student(teacher.config, None)).eval()
    )
    result: dict[str, Any] = {
        "torch": torch.__version__,
        "onnxruntime": onnx_runtime.onnxruntime.__version__,
        "load": load,
        "size": options.size,
        "family": options.family,
        "seconds": options.seconds,
        "repeats": options.repeats,
        "speed": [],
    }
    with tempfile.TemporaryDirectory() as name:
        result["sizes"] = sizes({"teacher": teacher, "student": small}, Path(name))
        for threads in options.threads:
            forwards = candidates(teacher, small, Path(name), threads, options.seconds)
            result["speed"] += speeds(forwards, threads, options.repeats, options.seconds)
    show(result)
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
