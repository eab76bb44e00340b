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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_CELLS = 2**19  # of the warping tables that are computed at once


@dataclass(frozen=True)
class Triphone:
    """One instance: its frames [L, T, D], the phone in the middle, its neighbours, who speaks."""

    frames: Tensor
    phone: str
    context: tuple[str, str]
    speaker: str


Errors = dict[tuple[str, str, str], float]
"""(phone of A and X, phone of B, speaker of A and B) to the mean error over contexts."""


@dataclass(frozen=True)
class Cell:
    """Comparisons of one context: places of d(X, A) and d(X, B) among the distances."""

    across: bool
    key: tuple[str, str, str]
    to_a: NDArray[np.intp]  # [X, A]
    to_b: NDArray[np.intp]  # [X, B]


def abx_errors(
    triphones: Sequence[Triphone], *, most: int = 10, speakers: int = 5, seed: int = 0
) -> list[tuple[Errors, Errors]]:
    """For each of the L states the errors within and across speakers that some triphones allow.

    Within: A, B and X are spoken by one. Across: X is spoken by another one than A and B.

    Args:
        most: instances of a phone, context and speaker that are compared, drawn by `seed`.
        speakers: of X, for a pair (A, B) across speakers, drawn by `seed`.
    """
    draw = np.random.default_rng(seed)
    cells, pairs = _cells(_groups(triphones, most, draw), speakers, draw)
    errors = []
    for state in range(len(triphones[0].frames)):
        between = _distances([triphone.frames[state] for triphone in triphones], pairs)
        errors.append((_errors(cells, between, False), _errors(cells, between, True)))
    return errors


def _errors(cells: Sequence[Cell], between: NDArray[np.float32], across: bool) -> Errors:
    """The mean over contexts (and speakers of X) of the cells within or across speakers."""
    values: dict[tuple[str, str, str], list[float]] = {}
    for cell in cells:
        if cell.across == across:
            error = cell_error(between[cell.to_a], between[cell.to_b], same=not across)
            values.setdefault(cell.key, []).append(error)
    return {key: float(np.mean(errors)) for key, errors in values.items()}


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


def _distances(instances: Sequence[Tensor], pairs: NDArray[np.intp]) -> NDArray[np.float32]:
    """[P] distances of the pairs [P, 2] of instances [T, D], in batches of like lengths."""
    frames = torch.nn.functional.normalize(torch.cat(list(instances)).float(), dim=-1)
    sizes = np.array([len(instance) for instance in instances])
    starts = np.cumsum(sizes) - sizes
    distances = np.empty(len(pairs), dtype=np.float32)
    longest = sizes[pairs].max(1, initial=0)
    order = np.lexsort((sizes[pairs].min(1, initial=2**31), longest))
    while len(order):
        # From the longest on, as many as fill the tables.
        count = max(1, _CELLS // int(longest[order[-1]]) ** 2)
        batch, order = order[-count:], order[:-count]
        steps = np.arange(longest[batch].max())
        first, second = (
            frames[torch.from_numpy((starts[side, None] + steps).clip(max=len(frames) - 1))]
            for side in pairs[batch].T
        )
        ends = torch.from_numpy(sizes[pairs[batch]] - 1)
        distances[batch] = warped_angles(first, second, ends).numpy()
    return distances


def warped_angles(first: Tensor, second: Tensor, ends: Tensor) -> Tensor:
    """[P] mean angle, as a share of π, along the cheapest warping path of each pair of instances.

    A path goes from the first frames to the last ones by steps of one frame in either instance or
    in both. Of paths of equal cost the one with more diagonal steps counts. The table is filled by
    diagonals i + j, each from the two before.

    Args:
        first: [P, T, D] frames of length 1 or 0 (at a right angle to all others).
        second: the same of the others.
        ends: [P, 2] last frames of both; what follows is not looked at.
    """
    angles = (first @ second.transpose(1, 2)).clamp(-1, 1).acos() / math.pi  # [P, T, T]
    diagonals = _diagonals(angles)  # [2T - 1, P, T]: i + j, pair, i
    outside = torch.full_like(diagonals[0], torch.inf)
    costs, lengths = [outside, diagonals[0]], [outside, torch.ones_like(outside)]
    for angle in diagonals[1:]:
        steps = [_shifted(costs[-2]), _shifted(costs[-1]), costs[-1]]  # both, first, second
        counts = [_shifted(lengths[-2]), _shifted(lengths[-1]), lengths[-1]]
        least, count = steps[0], counts[0]
        for cost, length in zip(steps[1:], counts[1:], strict=True):
            count = torch.where(cost < least, length, count)
            least = torch.minimum(cost, least)
        costs.append(least + angle)
        lengths.append(count + 1)
    at = (ends.sum(1) + 1, torch.arange(len(ends)), ends[:, 0])
    return torch.stack(costs)[at] / torch.stack(lengths)[at]


def _diagonals(table: Tensor) -> Tensor:
    """[P, T, U] to [T + U - 1, P, T]: entry (d, p, i) is (p, i, d - i), infinite outside."""
    pairs, rows, columns = table.shape
    width = rows + columns
    wide = torch.nn.functional.pad(table, (0, rows), value=torch.inf).flatten(1)
    skewed = wide[:, : rows * (width - 1)].view(pairs, rows, width - 1)
    return skewed.permute(2, 0, 1).contiguous()


def _shifted(diagonal: Tensor) -> Tensor:
    """[P, T]: the entry of i is that of i - 1, infinite at 0."""
    return torch.nn.functional.pad(diagonal[:, :-1], (1, 0), value=torch.inf)


Group = tuple[tuple[str, str], str, str]  # context, speaker, phone


def _groups(
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
    groups: Mapping[Group, list[int]], speakers: int, draw: np.random.Generator
) -> tuple[list[Cell], NDArray[np.intp]]:
    """All comparisons, and the pairs [P, 2] of instances whose distances they need."""
    phones: dict[tuple[tuple[str, str], str], list[str]] = {}
    voices: dict[tuple[tuple[str, str], str], list[str]] = {}
    for context, speaker, phone in groups:
        phones.setdefault((context, speaker), []).append(phone)
        voices.setdefault((context, phone), []).append(speaker)
    places: dict[tuple[int, int], int] = {}

    def between(x: Sequence[int], other: Sequence[int]) -> NDArray[np.intp]:
        """Places of the distances [X, other]; that of an instance to itself is never looked at."""
        rows = [
            [0 if i == j else places.setdefault((min(i, j), max(i, j)), len(places)) for j in other]
            for i in x
        ]
        return np.array(rows, dtype=np.intp)

    cells: list[Cell] = []
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
                if len(a) > 1:
                    cells.append(Cell(False, key, between(a, a), between(a, b)))
                for other in others:
                    x = groups[context, other, first]
                    cells.append(Cell(True, key, between(x, a), between(x, b)))
    return cells, np.array(list(places), dtype=np.intp).reshape(-1, 2)
