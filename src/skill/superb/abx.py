"""ABX on triphones: are two instances of a phone closer to each other than to another phone?

For a triphone X and instances A of the same phone and B of another phone between the same
neighbours, the error is that X is closer to B than to A (a tie is half an error). Frames are
compared by their angle, instances by dynamic time warping: the mean angle along the cheapest path.
The definition is that of the ZeroSpeech challenges (Schatz et al. 2013; Dunbar et al. 2021,
arXiv:2104.14700): errors are averaged over contexts, then over speakers, then over ordered pairs of
phones. No head and no seed: it is a property of the states.

Axes: I instances, T frames, D width, P pairs of instances.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_PAIRS = 2048  # compared at once


@dataclass(frozen=True)
class Triphone:
    """One instance: its frames [T, D], the phone in the middle, its neighbours and who speaks."""

    frames: Tensor
    phone: str
    context: tuple[str, str]
    speaker: str


Errors = dict[tuple[str, str, str], float]
"""(phone of A and X, phone of B, speaker of A and B) to the mean error over contexts."""


def abx_errors(
    triphones: Sequence[Triphone], *, across: bool, most: int = 10, speakers: int = 5, seed: int = 0
) -> Errors:
    """Errors of every pair of phones and speaker that the triphones allow.

    Args:
        across: X is spoken by another speaker than A and B; otherwise all by one.
        most: instances of a phone, context and speaker that are compared, drawn by `seed`.
        speakers: of X, for a pair (A, B) across speakers, drawn by `seed`.
    """
    draw = np.random.default_rng(seed)
    groups = _limited(triphones, most, draw)
    chosen = sorted({index for members in groups.values() for index in members})
    place = {index: row for row, index in enumerate(chosen)}
    contexts: dict[tuple[str, str], list[int]] = {}
    for index in chosen:
        contexts.setdefault(triphones[index].context, []).append(index)
    pairs = [pair for members in contexts.values() for pair in combinations(members, 2)]
    between = np.zeros((len(chosen), len(chosen)), dtype=np.float32)
    for start in range(0, len(pairs), _PAIRS):
        part = pairs[start : start + _PAIRS]
        first, second = ([triphones[pair[side]].frames for pair in part] for side in (0, 1))
        rows, columns = ([place[pair[side]] for pair in part] for side in (0, 1))
        between[rows, columns] = between[columns, rows] = warped_angles(first, second).numpy()
    cells: dict[tuple[str, str, str], list[float]] = {}
    for a, b, x, key in _cells(groups, across, speakers, draw):
        rows = [place[index] for index in x]
        to_a = between[np.ix_(rows, [place[index] for index in a])]
        to_b = between[np.ix_(rows, [place[index] for index in b])]
        cells.setdefault(key, []).append(cell_error(to_a, to_b, same=a is x))
    return {key: float(np.mean(errors)) for key, errors in cells.items()}


def abx_error(errors: Errors, weights: Mapping[str, float] | None = None) -> float:
    """The error rate: mean over speakers, then over ordered pairs of phones.

    `weights` says how often each speaker counts, for a bootstrap over speakers; a pair of phones
    whose speakers all have weight 0 drops out.

    Raises:
        ValueError: nothing is left to average.
    """
    shares = cell_weights(errors, weights)
    if not shares:
        raise ValueError("no two phones share a context and a speaker, so there is no ABX error")
    return sum(share * errors[key] for key, share in shares.items())


def cell_weights(
    errors: Errors, weights: Mapping[str, float] | None = None
) -> dict[tuple[str, str, str], float]:
    """The share of each pair of phones and speaker in the error rate; all shares add up to 1."""
    pairs: dict[tuple[str, str], float] = {}
    drawn = {key: 1.0 if weights is None else weights.get(key[2], 0.0) for key in errors}
    for (first, second, _), weight in drawn.items():
        pairs[first, second] = pairs.get((first, second), 0.0) + weight
    count = sum(total > 0 for total in pairs.values())
    return {key: w / pairs[key[:2]] / count for key, w in drawn.items() if w}


def cell_error(to_a: NDArray[np.float32], to_b: NDArray[np.float32], same: bool) -> float:
    """Mean over X, A ≠ X and B of [d(X, A) > d(X, B)], ties half; distances [X, A] and [X, B]."""
    comparisons = (np.sign(to_a[:, :, None] - to_b[:, None, :]) + 1) / 2
    if same:  # no instance is compared with itself
        comparisons = comparisons[~np.eye(len(to_a), dtype=bool)]
    return float(comparisons.mean())


def warped_angles(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """[P] mean angle, as a share of π, along the cheapest warping path of each pair of instances.

    A path goes from the first frames to the last ones by steps of one frame in either instance or
    in both. Of paths of equal cost the one with more diagonal steps counts.
    """
    a, b = _padded(first), _padded(second)
    sizes = torch.tensor([[len(x), len(y)] for x, y in zip(first, second, strict=True)])
    angles = (a @ b.transpose(1, 2)).clamp(-1, 1).acos() / math.pi  # [P, T, T]
    cost = torch.full((len(a), a.shape[1] + 1, b.shape[1] + 1), torch.inf)
    steps = torch.zeros_like(cost)
    cost[:, 0, 0] = 0
    for i in range(1, cost.shape[1]):
        for j in range(1, cost.shape[2]):
            before = torch.stack([cost[:, i - 1, j - 1], cost[:, i - 1, j], cost[:, i, j - 1]])
            length = torch.stack([steps[:, i - 1, j - 1], steps[:, i - 1, j], steps[:, i, j - 1]])
            least, which = before.min(0)
            cost[:, i, j] = least + angles[:, i - 1, j - 1]
            steps[:, i, j] = length.gather(0, which[None])[0] + 1
    every = torch.arange(len(a))
    return cost[every, sizes[:, 0], sizes[:, 1]] / steps[every, sizes[:, 0], sizes[:, 1]]


def _padded(instances: Sequence[Tensor]) -> Tensor:
    """[P, T, D] of unit frames; a frame of zeros stays zero, at a right angle to all others."""
    frames = torch.nn.utils.rnn.pad_sequence([x.float() for x in instances], batch_first=True)
    return torch.nn.functional.normalize(frames, dim=-1)


Group = tuple[tuple[str, str], str, str]  # context, speaker, phone


def _limited(
    triphones: Sequence[Triphone], most: int, draw: np.random.Generator
) -> dict[Group, list[int]]:
    """At most `most` instances of each phone, context and speaker."""
    groups: dict[Group, list[int]] = {}
    for index, triphone in enumerate(triphones):
        groups.setdefault((triphone.context, triphone.speaker, triphone.phone), []).append(index)
    return {
        key: sorted(draw.choice(members, most, replace=False).tolist())
        if len(members) > most
        else members
        for key, members in sorted(groups.items())
    }


def _cells(
    groups: Mapping[Group, list[int]], across: bool, speakers: int, draw: np.random.Generator
) -> Iterator[tuple[list[int], list[int], list[int], tuple[str, str, str]]]:
    """Instances (A, B, X) of every cell, and the cell's phones and speaker."""
    phones: dict[tuple[tuple[str, str], str], list[str]] = {}
    voices: dict[tuple[tuple[str, str], str], list[str]] = {}
    for context, speaker, phone in groups:
        phones.setdefault((context, speaker), []).append(phone)
        voices.setdefault((context, phone), []).append(speaker)
    for (context, speaker), members in phones.items():
        for first in members:
            a = groups[context, speaker, first]
            others = [voice for voice in voices[context, first] if voice != speaker]
            if len(others) > speakers:
                others = sorted(draw.choice(others, speakers, replace=False).tolist())
            for second in members:
                if first == second:
                    continue
                b, key = groups[context, speaker, second], (first, second, speaker)
                if across:
                    for other in others:
                        yield a, b, groups[context, other, first], key
                elif len(a) > 1:
                    yield a, b, a, key
