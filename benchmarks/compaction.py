"""What compaction does to a whole stage 1: to its time, its memory, its loss and its student.

    python benchmarks/compaction.py RUN --output compaction.json

RUN is the folder of a finished `make reproduce`: its clusters and audio are used. The sample
teacher is pruned by the paper's schedule (presets/paper.yaml) in fewer steps of less audio:
warm-ups are shorter and the gates' rate is higher in the same proportion, so that log α can go as
far. (At the paper's own rate no gate had come below a log α of -6.4 after 3,435 of 5,000 steps;
units are removed below -10.8.) λ goes as far as in the sample's stage: as fast as the gates, it
swung so far that a stage without compaction ended at an expected sparsity of 0.48.

Each seed is trained twice, with and without compaction: on a CPU side by side with a thread each,
so that a busy machine harms both alike; on a GPU one after the other.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from skill import jobs, params
from skill.files import read_csv
from skill.repository import find

STUDENT = "skill-wavlm"
REMOVALS = 50  # times in a stage at which gates are looked at
LATE = 0.2  # the stage's last part


def left(row: dict[str, Any]) -> str:
    """How many parameters the last removal left."""
    return f"{row['removals'][-1]['parameters']:,}" if row["removals"] else "everything"


COLUMNS: dict[str, tuple[int, Callable[[dict[str, Any]], str]]] = {  # widths and cells
    "seed": (6, lambda row: str(row["seed"])),
    "compaction": (12, lambda row: "on" if row["compacted"] else "off"),
    "s": (7, lambda row: f"{row['seconds']:.0f}"),
    "late audio s/s": (16, lambda row: f"{row['late_audio_per_second']:.1f}"),
    "GB": (6, lambda row: f"{row['peak_bytes'] / 1e9:.2f}"),
    "left": (12, left),
    "sparsity expected": (19, lambda row: f"{row['expected_sparsity']:.3f}"),
    "student": (11, lambda row: f"{row['parameters']:,}"),
    "loss": (9, lambda row: f"{row['validation_loss']:.4f}"),
}


def job(seed: int, compacted: bool, options: argparse.Namespace) -> jobs.Stage1Job:
    """Stage 1 of the sample student in the paper's proportions."""
    sample, paper = params.load(find("params.yaml")), params.load(find("presets/paper.yaml"))
    student, steps = sample.students[STUDENT], options.steps
    shorter = paper.stage1.steps / steps
    ascent = (student.stage1.multiplier_learning_rate or 0.0) * student.stage1.steps
    stage = paper.stage1.model_copy(
        update={
            "steps": steps,
            "warmup": round(paper.stage1.warmup / shorter),
            "sparsity_warmup": round(paper.stage1.sparsity_warmup / shorter),
            "gate_learning_rate": paper.stage1.gate_learning_rate * shorter,
            "multiplier_learning_rate": ascent / steps,
            "learning_rate": student.stage1.learning_rate,
            "dropout": student.stage1.dropout,
            "batch_seconds": options.batch_seconds,
            "micro_seconds": options.batch_seconds,
            "validate_every": max(50, steps // 10 // 50 * 50),
            "compact_every": max(1, steps // REMOVALS) if compacted else 0,
        }
    )
    return jobs.Stage1Job(
        seed=seed, teachers=student.teachers, definition=student.definition,
        sparsity=student.sparsity, unlabelled=sample.unlabelled, stage=stage,
    )  # fmt: skip


def train(job: jobs.Stage1Job, options: argparse.Namespace) -> dict[str, Any]:
    """Run the verb `stage1` in a process of its own."""
    sample = params.load(find("params.yaml"))
    teachers = [str(find(str(sample.teachers[name].source)).resolve()) for name in job.teachers]
    manifests = [f"results/corpora/{name}.csv" for name in job.unlabelled.corpora]
    with tempfile.TemporaryDirectory(prefix="skill compaction ") as name:
        folder = Path(name)
        curve, summary_file = folder / "curve.csv", folder / "summary.json"
        command = [sys.executable, "-m", "skill", "stage1", STUDENT]
        command += ["--params", job.model_dump_json(), "--teachers", *teachers]
        command += ["--manifests", *manifests]
        command += ["--grouping", f"results/grouping/{STUDENT}.json"]
        command += ["--output", f"{folder / 'student.safetensors'}", "--curve", f"{curve}"]
        command += ["--summary", f"{summary_file}", "--scratch", f"{folder / 'scratch'}"]
        command += ["--threads", "1"]
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=options.run, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        printed = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            sys.exit(printed)
        summary = json.loads(summary_file.read_text(encoding="utf-8"))
        speeds = [
            float(row["audio_per_second"])
            for row in read_csv(curve)
            if row["audio_per_second"] and int(row["step"]) > (1 - LATE) * job.stage.steps
        ]
    removals = re.findall(r"(\d+) parameters stay after (\d+) steps", printed)
    return {
        "seed": job.seed,
        "compacted": job.stage.compact_every > 0,
        "seconds": seconds,
        "late_audio_per_second": sum(speeds) / len(speeds),
        "peak_bytes": usage.ru_maxrss * 1024,
        "removals": [{"step": int(step), "parameters": int(left)} for left, step in removals],
        "parameters": summary["parameters"],
        "sparsity": summary["sparsity"],
        "expected_sparsity": summary["expected_sparsity"],
        "validation_loss": summary["validation_loss"],
    }


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Two rows for every seed: without compaction, with it."""
    together = 1 if torch.cuda.is_available() else 2
    jobs = [job(seed, compacted, options) for seed in options.seeds for compacted in (False, True)]
    with ThreadPoolExecutor(together) as pool:
        return list(pool.map(lambda job: train(job, options), jobs))


def table(rows: list[dict[str, Any]], options: argparse.Namespace) -> str:
    """What is printed."""
    lines = [f"{options.steps} steps of {options.batch_seconds:g} s, load {options.load:.1f}"]
    lines.append("".join(f"{head:>{width}}" for head, (width, _) in COLUMNS.items()))
    for row in rows:
        lines.append("".join(f"{cell(row):>{width}}" for width, cell in COLUMNS.values()))
    for off, on in zip(rows[::2], rows[1::2], strict=True):
        whole = on["seconds"] / off["seconds"]
        late = off["late_audio_per_second"] / on["late_audio_per_second"]
        gap = on["validation_loss"] - off["validation_loss"]
        lines.append(
            f"seed {on['seed']}: {whole:.2f} of the time, {late:.2f} in the stage's last part; "
            f"validation loss {gap:+.4f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-seconds", type=float, default=4.0)
    parser.add_argument("--output", type=Path, help="JSON of all figures")
    options = parser.parse_args()
    options.load = os.getloadavg()[0]
    rows = measure(options)
    print(table(rows, options))
    if options.output:
        about = {key: getattr(options, key) for key in ("steps", "batch_seconds", "load")}
        options.output.write_text(json.dumps(about | {"trainings": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
