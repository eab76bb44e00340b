"""What compaction does to a whole stage 1: to its time, its memory, its loss and its student.

    python benchmarks/compaction.py RUN --output compaction.json

RUN is the folder of a finished `make reproduce`: its clusters and audio are used. The sample
teacher is pruned by the paper's schedule (presets/paper.yaml) in fewer steps of less audio:
warm-ups are shorter and the gates' rate is higher in the same proportion, so that log α can go as
far. λ goes as far as in the sample's stage: as fast as the gates, it swings (docs/decisions.md).

Each seed is trained twice, without and with compaction: on a CPU side by side with a thread each,
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
from skill.utils.repository import find

from skill.config import jobs, params
from skill.utils.files import read_csv, read_json

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


def job(sample: params.Params, options: argparse.Namespace) -> jobs.Stage1Job:
    """Stage 1 of the sample student in the paper's proportions, without compaction."""
    student, paper = sample.students[STUDENT], params.load(find("presets/paper.yaml")).stage1
    shorter = paper.steps / options.steps
    ascent = (student.stage1.multiplier_learning_rate or 0.0) * student.stage1.steps
    stage = paper.model_copy(
        update={
            "steps": options.steps,
            "warmup": round(paper.warmup / shorter),
            "sparsity_warmup": round(paper.sparsity_warmup / shorter),
            "gate_learning_rate": paper.gate_learning_rate * shorter,
            "multiplier_learning_rate": ascent / options.steps,
            "learning_rate": student.stage1.learning_rate,
            "dropout": student.stage1.dropout,
            "batch_seconds": options.batch_seconds,
            "micro_seconds": options.batch_seconds,
        }
    )
    return jobs.Stage1Job(
        seed=student.seed, teachers=student.teachers, definition=student.definition,
        sparsity=student.sparsity, unlabelled=sample.unlabelled, stage=stage,
    )  # fmt: skip


def train(job: jobs.Stage1Job, teachers: list[Path], run: Path) -> dict[str, Any]:
    """Run the verb `stage1` in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="skill compaction ") as name:
        folder = Path(name)
        curve, summary = folder / "student.csv", folder / "student.json"
        command: list[str | Path] = [sys.executable, "-m", "skill", "stage1", STUDENT]
        command += ["--params", job.model_dump_json(), "--teachers", *teachers, "--manifests"]
        command += [f"results/corpora/{corpus}.csv" for corpus in job.unlabelled.corpora]
        command += ["--clustering", f"results/clustering/{STUDENT}.json"]
        command += ["--output", folder / "student.safetensors"]
        command += ["--scratch", folder / "scratch", "--threads", "1"]
        start = time.perf_counter()
        with subprocess.Popen(command, cwd=run, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            printed = process.stderr.read()
            _, status, usage = os.wait4(process.pid, 0)  # the memory of this process alone
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        if process.returncode:
            sys.exit(printed)
        found = read_json(summary)
        rows = read_csv(curve)
    late = [float(r["audio_per_second"]) for r in rows[-round(LATE * len(rows)) :]]
    removals = re.findall(r"(\d+) parameters stay after (\d+) steps", printed)
    kept = ("parameters", "sparsity", "expected_sparsity", "validation_loss")
    return {
        "seed": job.seed,
        "compacted": job.stage.compact_every > 0,
        "seconds": seconds,
        "late_audio_per_second": sum(late) / len(late),
        "peak_bytes": usage.ru_maxrss * 1024,
        "removals": [{"step": int(step), "parameters": int(left)} for left, step in removals],
    } | {key: found[key] for key in kept}


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Two rows for every seed: without compaction, with it."""
    sample = params.load(find("params.yaml"))
    off = job(sample, options)
    often = {"compact_every": max(1, options.steps // REMOVALS)}
    on = off.model_copy(update={"stage": off.stage.model_copy(update=often)})
    teachers = [find(str(sample.teachers[name].source)).resolve() for name in off.teachers]
    rows: list[dict[str, Any]] = []
    with ThreadPoolExecutor(1 if torch.cuda.is_available() else 2) as pool:
        for seed in options.seeds:
            pair = [job.model_copy(update={"seed": seed}) for job in (off, on)]
            rows += pool.map(lambda job: train(job, teachers, options.run), pair)
    return rows


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
