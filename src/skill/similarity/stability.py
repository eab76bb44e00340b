"""How far groups depend on the calibration set: the bootstrap over its utterances.

Each resample draws as many utterances as there are, with replacement; frames of one utterance are
no independent evidence and stay together. The kernel sums between utterances are computed once
(`skill.similarity.sample_space.block_sums`), so that a resample costs no pass over the states.

Axes: L states, U utterances, B resamples.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from skill.similarity.clustering import Groups
from skill.similarity.hsic import align
from skill.similarity.sample_space import BlockSums

Array = NDArray[np.float64]
MAX_BLOCKS = 256  # kernel sums between blocks grow with the square of their number


def utterance_bounds(owner: Sequence[int] | Array, most: int = MAX_BLOCKS) -> list[int]:
    """Bounds (0, ..., N) of the utterances' frames, given the utterance of each frame.

    Neighbours are joined where there are more than `most`: they stand in the order of a hash, so
    that a block is a random handful of utterances.
    """
    changes = np.flatnonzero(np.diff(np.asarray(owner))) + 1
    bounds = np.concatenate([[0], changes, [len(owner)]])
    count = len(bounds) - 1
    if count > most:
        bounds = bounds[np.arange(most + 1) * count // most]
    return [int(bound) for bound in bounds]


def bootstrap(sums: BlockSums, resamples: int, seed: int) -> Iterator[Array]:
    """CKA [L, L] of `resamples` resamples of the blocks; the same seed draws the same."""
    generator = np.random.default_rng(seed)
    blocks = len(sums.sizes)
    for _ in range(resamples):
        times = np.bincount(generator.integers(blocks, size=blocks), minlength=blocks)
        yield align(sums.hsic(torch.from_numpy(times))).numpy()


def subsets(
    sums: BlockSums, frames: int, resamples: int, seed: int
) -> Iterator[tuple[Array, Array | None]]:
    """CKA [L, L] of two disjoint random sets of blocks, each as many as first hold `frames` frames.

    The second is None where what is left over is too little. Blocks are drawn without repetition.
    """
    generator = np.random.default_rng(seed)
    sizes = sums.sizes.numpy()
    frames = max(frames, 4)
    for _ in range(resamples):
        order = generator.permutation(len(sizes))
        ends = np.cumsum(sizes[order])
        first = int(np.searchsorted(ends, min(frames, ends[-1]))) + 1
        second = int(np.searchsorted(ends, ends[first - 1] + frames)) + 1
        both = second <= len(sizes)
        yield (
            _of_blocks(sums, order[:first]),
            _of_blocks(sums, order[first:second]) if both else None,
        )


def _of_blocks(sums: BlockSums, blocks: NDArray[np.int64]) -> Array:
    times = torch.zeros(len(sums.sizes), dtype=torch.int64)
    times[torch.from_numpy(blocks)] = 1
    return align(sums.hsic(times)).numpy()


def co_membership(partitions: Sequence[Groups], states: int) -> Array:
    """Share of the partitions [L, L] in which two states are in one group; 0 if left out."""
    together = np.zeros((states, states))
    for groups in partitions:
        for group in groups:
            together[np.ix_(group, group)] += 1 / len(partitions)
    return together


def adjusted_rand(one: Groups, two: Groups) -> float:
    """Adjusted Rand index of two partitions of the same states (Hubert and Arabie 1985).

    1 where they are equal, 0 on average where they agree by chance alone.
    """
    shared = np.array([[len(set(a) & set(b)) for b in two] for a in one], dtype=float)
    pairs, of_one, of_two, every = (
        (x * (x - 1) / 2).sum()
        for x in (shared, shared.sum(1), shared.sum(0), shared.sum(keepdims=True))
    )
    chance = of_one * of_two / every if every else 0.0
    most = (of_one + of_two) / 2
    return float((pairs - chance) / (most - chance)) if most != chance else 1.0
