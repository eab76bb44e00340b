"""Cost of the evaluation's shortcuts: `python benchmarks/superb.py [means|dtw]`.

Times are CPU time of this process, on one thread.

means: the head of a 12-class task trained on cached time means against the uncached path (upstream
and head on every step), extrapolated to SUPERB's 200,000 steps. dtw: subsequence warping of
queries in many documents, against dtw-python called pair by pair (`pip install dtw-python`; else
the recurrence in numpy), as s3prl does: of given distances, and of the whole search, where the pair
by pair distances are scipy's cdist. Values are asserted to be equal to 1e-5.

The whole search is bound by one matrix product, which warping cannot make cheaper.
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
    print(f"ratio: {rates['uncached'] / rates['cached']:.0f} (claimed: 100 or more)")


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
            # with the path, as s3prl calls it; without (distance_only) it takes two thirds
            found = package(distances, step_pattern="asymmetric", open_begin=True, open_end=True)
            return float(found.normalizedDistance)

        name = "dtw-python"
    except ImportError:
        alone, name = _numpy_distance, "numpy recurrence"
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(100, 600, (documents,), generator=generator).tolist()
    archive = [torch.randn(n, width, generator=generator) for n in sorted(lengths)]
    asked = [torch.randn(query, width, generator=generator) for _ in range(queries)]
    began = time.process_time()
    ours = alignment.search_scores(asked, archive)
    search = time.process_time() - began
    theirs = np.zeros(ours.shape)
    alike = np.zeros(ours.shape)
    measuring = warping = pairwise = 0.0
    for row, one in enumerate(asked):
        began = time.process_time()
        pairs = [np.expm1(cdist(one.numpy(), document.numpy(), "cosine")) for document in archive]
        scaled = []
        for distances in pairs:
            low, high = distances.min(1, keepdims=True), distances.max(1, keepdims=True)
            scaled.append((distances - low) / (high - low))
        measuring += time.process_time() - began
        began = time.process_time()
        theirs[row] = [-alone(distances) for distances in scaled]
        pairwise += time.process_time() - began
        warping += _warped_together(pairs, alike[row])
    for found in (ours.numpy(), alike):
        difference = float(np.abs(theirs - found).max())
        assert difference < 1e-5, difference
    print(f"warping alone: vectorised {warping:.3f} s, {name} {pairwise:.3f} s, "
          f"ratio {pairwise / warping:.1f}")  # fmt: skip
    print(
        f"whole search: vectorised {search:.3f} s, cdist and {name} {measuring + pairwise:.3f} s, "
        f"ratio {(measuring + pairwise) / search:.1f}, largest difference {difference:.1e}"
    )


def _warped_together(pairs: list[np.ndarray], scores: np.ndarray, group: int = 50) -> float:
    """Fill `scores` with minus the warping distances of one query; the seconds that it took.

    Laying the matrices side by side is not counted: the search's matrix product does it.
    """
    spent = 0.0
    for first in range(0, len(pairs), group):
        some = [torch.from_numpy(pair).float() for pair in pairs[first : first + group]]
        widest = max(pair.shape[1] for pair in some)
        laid = torch.stack(
            [pair[:, torch.arange(-2, widest).clamp(0, pair.shape[1] - 1)] for pair in some], dim=1
        )
        lengths = torch.tensor([pair.shape[1] for pair in some])
        outside = torch.arange(widest) >= lengths[:, None]
        began = time.process_time()
        found = alignment._warped(laid, outside)
        spent += time.process_time() - began
        scores[first : first + group] = -found.numpy()
    return spent


if __name__ == "__main__":
    torch.set_num_threads(1)
    for chosen in sys.argv[1:] or ("means", "dtw"):
        {"means": means, "dtw": dtw}[chosen]()
