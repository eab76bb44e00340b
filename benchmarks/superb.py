"""Cost of the evaluation's shortcuts: `python benchmarks/superb.py [means|dtw]`.

Times are CPU time of this process, on one thread.

means: the head of a 12-class task trained on cached time means against the uncached path (upstream
and head on every step), extrapolated to SUPERB's 200,000 steps. dtw: subsequence warping of
queries against many documents, against scipy's cdist and dtw-python (`pip install dtw-python`; else
the recurrence in numpy) called pair by pair, as s3prl does. Equality is asserted.
"""

import sys
import time
from functools import partial

import numpy as np
import torch
from scipy.spatial.distance import cdist

from skill.encoder import EncoderConfig, SpeechEncoder
from skill.superb import alignment, fitting
from skill.superb.examples import Example, Fold
from skill.superb.features import Encoder, Features
from skill.superb.problems import Labels
from skill.superb.tasks import configured

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


def means(blocks: int = 12, width: int = 160, count: int = 64, seconds: float = 1.0) -> None:
    """Seconds for 200,000 steps of batch 32 with and without the cache of time means."""
    torch.manual_seed(0)
    config = EncoderConfig.uniform("wavlm", width=width, blocks=blocks, heads=5, ffn=4 * width,
                                   conv=96)  # fmt: skip
    upstream = Encoder(SpeechEncoder(config))
    task = configured("ks", {"steps": 100, "eval_every": 100, "learning_rates": [1e-3],
                             "order": "shuffled"})  # fmt: skip
    examples = _examples(count, seconds)
    fold = Fold(examples, examples, examples, labels=(tuple("abcdefghijkl"),))
    problem = Labels(task, fold)
    rates = {}
    for name, pooled, room, steps in (("uncached", False, 0.0, 4), ("cached", True, 1e9, 400)):
        features = Features(upstream, pooled, room)
        began = time.process_time()
        if room:
            features.prepare(examples)
        filling = time.process_time() - began
        candidates = [fitting._candidate(problem, features, task, 1e-3, 0)]
        batches = fitting._batches(task, examples, 0, 0)
        fitting._step(problem, features, task, candidates, [next(batches)], 0, 0)
        began = time.process_time()
        for step in range(steps):
            fitting._step(problem, features, task, candidates, [next(batches)], 0, step)
        per_step = (time.process_time() - began) / steps
        rates[name] = per_step * STEPS + filling
        print(
            f"{name}: {1000 * per_step:.2f} ms a step, {filling:.1f} s to fill the cache of "
            f"{count if room else 0} utterances, {rates[name]:.0f} s for {STEPS} steps"
        )
    print(f"ratio: {rates['uncached'] / rates['cached']:.0f}")


def _numpy_distance(distances: np.ndarray) -> float:
    total = distances[0].copy()
    for row in distances[1:]:
        best = total.copy()
        best[1:] = np.minimum(best[1:], total[:-1])
        best[2:] = np.minimum(best[2:], total[:-2])
        total = best + row
    return float(total.min() / len(distances))


def dtw(documents: int = 100, queries: int = 30, query: int = 60, width: int = 160) -> None:
    """Seconds for all queries in all documents, both ways."""
    try:
        from dtw import dtw as package

        def alone(distances: np.ndarray) -> float:
            found = package(distances, step_pattern="asymmetric", open_begin=True, open_end=True)
            return float(found.normalizedDistance)

        name = "dtw-python"
    except ImportError:
        alone, name = _numpy_distance, "numpy recurrence"
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(100, 600, (documents,), generator=generator).tolist()
    archive = [torch.randn(n, width, generator=generator) for n in lengths]
    asked = [torch.randn(query, width, generator=generator) for _ in range(queries)]
    began = time.process_time()
    ours = alignment.search_scores(asked, archive)
    vectorised = time.process_time() - began
    began = time.process_time()
    theirs = np.zeros(ours.shape)
    for row, one in enumerate(asked):
        for column, document in enumerate(archive):
            distances = np.expm1(cdist(one.numpy(), document.numpy(), "cosine"))
            low, high = distances.min(1, keepdims=True), distances.max(1, keepdims=True)
            theirs[row, column] = -alone((distances - low) / (high - low))
    pairwise = time.process_time() - began
    difference = float(np.abs(theirs - ours.numpy()).max())
    assert difference < 1e-5, difference
    print(
        f"vectorised {vectorised:.3f} s, {name} {pairwise:.3f} s, "
        f"ratio {pairwise / vectorised:.1f}, largest difference {difference:.1e}"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    for chosen in sys.argv[1:] or ("means", "dtw"):
        {"means": means, "dtw": dtw}[chosen]()
