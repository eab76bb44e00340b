"""Whether reading audio keeps up with the loop.

    python benchmarks/loader.py results/corpora/queen.csv --output loader.json

Batches of 20 s are read from FLAC with 0 to 4 workers. `alone`: audio seconds per second with
nobody else at work. `waits`: the share of its time that a loop waits for audio which computes
(matrix products) for as long as a step takes at `--need` audio seconds per second. Need on a GPU:
4,000 (the aim of `benchmarks/training.py`); on two cores at the sample scale: some 60. The variants
take turns; figures are medians over rounds.
"""

import argparse
import json
import os
import random
import statistics
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from skill.data.batches import Batches
from skill.data.loader import Loader
from skill.data.manifest import usable

WORKERS = (0, 1, 2, 4)


def passed(batches: Batches, workers: int, first: int, options: Any, busy: bool) -> dict[str, Any]:
    """Read `options.steps` steps; `busy`: and compute for as long as a step takes."""
    step_seconds = options.batch_seconds / options.need if busy else 0.0
    matrix = torch.randn(256, 256)
    waited = read = 0.0
    start = time.perf_counter()
    with Loader(batches, first, workers) as loader:
        steps = islice(loader, options.steps)
        while True:
            before = time.perf_counter()
            got = next(steps, None)
            now = time.perf_counter()
            waited += now - before
            if got is None:
                break
            read += sum(float(part.lengths.sum()) for part in got[1]) / 16000
            while time.perf_counter() - now < step_seconds:
                matrix @ matrix
    seconds = time.perf_counter() - start
    return {"alone": read / seconds, "waits": waited / seconds}


def measure(batches: Batches, options: Any) -> list[dict[str, Any]]:
    """All numbers of workers in turn."""
    figures: dict[int, dict[str, list[float]]] = {workers: {} for workers in WORKERS}
    order, first = random.Random(0), 0
    for _ in range(options.rounds):
        for workers in order.sample(WORKERS, len(WORKERS)):
            for key, busy in (("alone", False), ("waits", True)):
                value = passed(batches, workers, first, options, busy)[key]
                figures[workers].setdefault(key, []).append(value)
                first += options.steps
    return [
        {"workers": workers, "need": options.need}
        | {key: statistics.median(values) for key, values in figures[workers].items()}
        for workers in WORKERS
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifests", nargs="+", type=Path)
    parser.add_argument("--batch-seconds", type=float, default=20.0)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--need", type=float, default=60.0, help="audio seconds per second")
    parser.add_argument("--output", type=Path, help="JSON of all figures")
    options = parser.parse_args()
    batches = Batches(usable(options.manifests, 1.0, 15.6, "train"), options.batch_seconds, seed=0)
    load = os.getloadavg()[0]
    rows = measure(batches, options)
    print(f"load {load:.1f}")
    waits = f"waits at {options.need:g} s/s"
    print(f"{'workers':>8}{'alone, audio s/s':>18}{waits:>20}")
    for row in rows:
        print(f"{row['workers']:8}{row['alone']:18.0f}{row['waits']:20.1%}")
    if options.output:
        options.output.write_text(
            json.dumps({"loaders": rows, "load": load, "steps": options.steps}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
