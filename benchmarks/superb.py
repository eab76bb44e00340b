"""What the evaluation's shortcuts save, beside the uncached path and a warping package.

    python benchmarks/superb.py --output superb.json
    python benchmarks/superb.py --parts dtw                         # or `means`: one of them

Times are CPU time of this process, on one thread.

means: the head of a 12-class task trained on cached time means against the uncached path (upstream
and head on every step), extrapolated to SUPERB's 200,000 steps. dtw: subsequence warping of
queries in many documents, against dtw-python called pair by pair (`pip install dtw-python`; else
the recurrence in numpy), as s3prl does: of given distances, and of the whole search, where the pair
by pair distances are scipy's cdist. Values are asserted to be equal to 1e-5.

The whole search is bound by the matrix product of all frames, which warping cannot make cheaper.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import cdist

from skill.config.tasks import make_task
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.superb import dtw as alignment
from skill.superb import train_heads
from skill.superb.downstream import Classification
from skill.superb.examples import Example, Fold
from skill.superb.feature_cache import FeatureCache
from skill.superb.upstream import Encoder

STEPS = 200_000


def _examples(count: int, seconds: float) -> list[Example]:
    generator = np.random.default_rng(0)
    made = []
    for number in range(count):
        waveform = generator.normal(0, 0.1, int(16000 * seconds)).astype(np.float32)
        made.append(
            Example(f"u{number}", len(waveform), (number % 12,), "", partial(np.asarray, waveform))
        )
    return made


def means(blocks: int = 12, width: int = 160, count: int = 64, seconds: float = 1.0) -> dict:
    """Seconds for 200,000 steps of batch 32 with and without the cache of time means."""
    torch.manual_seed(0)
    config = EncoderConfig.uniform("wavlm", width=width, blocks=blocks, heads=5, ffn=4 * width,
                                   conv=96)  # fmt: skip
    upstream = Encoder(SpeechEncoder(config))
    task = make_task("ks", {"steps": 100, "eval_every": 100, "learning_rates": [1e-3],
                             "order": "shuffled"})  # fmt: skip
    examples = _examples(count, seconds)
    fold = Fold(examples, examples, examples, labels=(tuple("abcdefghijkl"),))
    problem = Classification(task, fold)
    rates = {}
    for name, pooled, room, steps in (("uncached", False, 0.0, 4), ("cached", True, 1e9, 400)):
        features = FeatureCache(upstream, pooled, room)
        began = time.process_time()
        if room:
            features.prepare(examples)
        filling = time.process_time() - began
        candidates = [train_heads._candidate(problem, features, task, 1e-3, 0)]
        batches = train_heads._batches(task, examples, 0, 0)
        train_heads._step(problem, features, task, candidates, [next(batches)], 0, 0)
        began = time.process_time()
        for step in range(steps):
            train_heads._step(problem, features, task, candidates, [next(batches)], 0, step)
        per_step = (time.process_time() - began) / steps
        rates[name] = per_step * STEPS + filling
        print(
            f"{name}: {1000 * per_step:.2f} ms a step, {filling:.1f} s to fill the cache of "
            f"{count if room else 0} utterances, {rates[name]:.0f} s for {STEPS} steps"
        )
    print(f"ratio: {rates['uncached'] / rates['cached']:.0f} (claimed: 100 or more)")
    return rates | {"ratio": rates["uncached"] / rates["cached"]}


def _numpy_distance(distances: np.ndarray) -> float:
    total = distances[0].copy()
    for row in distances[1:]:
        best = total.copy()
        best[1:] = np.minimum(best[1:], total[:-1])
        best[2:] = np.minimum(best[2:], total[:-2])
        total = best + row
    return float(total.min() / len(distances))


def dtw(documents: int = 100, queries: int = 30, width: int = 160) -> dict:
    """Seconds for all queries in all documents, both ways."""
    try:
        from dtw import dtw as package

        def alone(distances: np.ndarray) -> float:
            # with the path, as s3prl calls it; without (distance_only) it takes two thirds
            found = package(distances, step_pattern="asymmetric", open_begin=True, open_end=True)
            return float(found.normalizedDistance)

        name = "dtw-python"
    except ImportError:
        alone, name = _numpy_distance, "numpy recurrence"
    generator = torch.Generator().manual_seed(0)
    archive, asked = (
        [torch.randn(n, width, generator=generator) for n in sorted(sizes.tolist(), reverse=True)]
        for sizes in (
            torch.randint(100, 600, (documents,), generator=generator),
            torch.randint(30, 90, (queries,), generator=generator),
        )
    )
    ours, search = _timed(partial(alignment.search_scores, asked, archive))
    theirs = np.zeros(ours.shape)
    alike = np.zeros(ours.shape)
    measuring = pairwise = warping = 0.0
    for first in range(0, documents, 5):
        columns = slice(first, first + 5)
        pairs, spent = _timed(partial(_scaled_distances, asked, archive[columns]))
        measuring += spent
        found, spent = _timed(lambda rows: [[alone(d) for d in row] for row in rows], pairs)
        theirs[:, columns] = -np.array(found)
        pairwise += spent
        alike[:, columns], spent = _warped_together(pairs)
        warping += spent
    frames, heard = torch.cat(asked)[:1000], torch.cat(archive)[:2000]
    products = sum(map(len, asked)) * sum(map(len, archive)) / (len(frames) * len(heard))
    _, product = _timed(torch.mm, frames, heard.T)
    for found in (ours.numpy(), alike):
        difference = float(np.abs(theirs - found).max())
        assert difference < 1e-5, difference
    print(f"warping alone: together {warping:.3f} s, {name} pair by pair {pairwise:.3f} s, "
          f"ratio {pairwise / warping:.1f} (claimed: 20 or more)")  # fmt: skip
    print(
        f"whole search of width {width}: {search:.3f} s, of which the matrix product "
        f"{products * product:.3f} s; cdist, scaling and {name} {measuring + pairwise:.3f} s, "
        f"ratio {(measuring + pairwise) / search:.1f}; largest difference {difference:.1e}"
    )
    return {
        "peer": name, "warping": pairwise / warping, "search": (measuring + pairwise) / search,
        "largest_difference": difference,
    }  # fmt: skip


def _timed(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What `work` gives and its CPU time, the second time it is done: memory is at hand."""
    work(*arguments)
    began = time.process_time()
    return work(*arguments), time.process_time() - began


def _scaled_distances(
    queries: list[torch.Tensor], documents: list[torch.Tensor]
) -> list[list[np.ndarray]]:
    """Distances of each query to each document as s3prl makes them, pair by pair."""
    rows = []
    for query in queries:
        rows.append([])
        for document in documents:
            distances = np.exp(cdist(query.numpy(), document.numpy(), "cosine")) - 1
            low, high = distances.min(1)[:, None], distances.max(1)[:, None]
            rows[-1].append((distances - low) / np.clip(high - low, 1e-9, np.inf))
    return rows


def _warped_together(pairs: list[list[np.ndarray]]) -> tuple[np.ndarray, float]:
    """Minus the warping distances of queries (longest first) in documents; the seconds it took.

    Laying the matrices side by side is not counted: the search's matrix product does it.
    """
    sizes, lengths = [len(row[0]) for row in pairs], [d.shape[1] for d in pairs[0]]
    places = np.arange(-2, max(lengths))
    laid = torch.from_numpy(np.stack([
        np.stack([d[frame, places.clip(0, d.shape[1] - 1)] for d in row])
        for frame in range(sizes[0]) for row in pairs if frame < len(row[0])
    ])).float()  # fmt: skip
    outside = torch.from_numpy(places[2:] >= np.array(lengths)[:, None])
    found, spent = _timed(alignment.warp, laid, sizes, outside)
    return -found.numpy(), spent


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=["means", "dtw"], choices=["means", "dtw"])
    parser.add_argument("--output", type=Path, help="JSON of the ratios")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {part: {"means": means, "dtw": dtw}[part]() for part in options.parts}
    if options.output:
        options.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
