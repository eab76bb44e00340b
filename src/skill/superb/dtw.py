"""Query by example: subsequence dynamic time warping of many queries in many documents at once.

`warping_distance` is the definition, for one query and one document; `search_scores` gives the same
for all pairs, many times as fast.

Legend: Q query frames, T document frames, N documents, K queries, D width, R rows: one row for each
frame of each query, those of all first frames before those of all second frames.

The step pattern is "asymmetric" with open begin and open end: D[i, j] = d[i, j] + min(D[i-1, j],
D[i-1, j-1], D[i-1, j-2]), D[0, j] = d[0, j]; the distance is min_j D[Q-1, j] / Q. A row needs only
the row before it, so that all frames of all documents advance together, by one frame of every query
a time. One matrix product gives the distances of all rows, and takes most of the time.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_sequence

_GAP = 2  # columns before each document: as far as one step reaches back
_COLUMNS = 2_000  # of all documents that are aligned together: a row and its sums stay in cache
_FLAT = 1e-5  # a row of distances between frames of digital silence
SHORTEST_QUERY = 5  # frames; shorter queries score 0, as in the protocol


def _unit(frames: Tensor) -> Tensor:
    return F.normalize(frames, dim=-1, eps=1e-12)


def cosine_exp(query: Tensor, documents: Tensor) -> Tensor:
    """exp(1 - cos) - 1 between all frames: [Q, D] and [..., T, D] to [..., Q, T]."""
    return (_unit(query) @ _unit(documents).mT).neg_().add_(1).expm1_()


def warping_distance(distances: NDArray[np.float64]) -> float:
    """Distance of one query in one document from the distances of their frames [Q, T]."""
    lowest, highest = distances.min(axis=1), distances.max(axis=1)
    scaled = (distances - lowest[:, None]) / np.maximum(highest - lowest, 1e-9)[:, None]
    total = scaled[0]  # open begin: a path may start at any document frame
    for row in scaled[1:]:
        one_before = np.append(np.inf, total[:-1])
        two_before = np.append([np.inf, np.inf], total[:-2])[: len(total)]
        total = row + np.minimum(total, np.minimum(one_before, two_before))
    return float(total.min() / len(scaled))  # open end


def scale_rows(distances: Tensor) -> None:
    """Bring each query frame's distances to a document, [..., gap + T], to 0…1, in place.

    A row without more than rounding noise becomes (nearly) 0: the protocol's bound is 1e-9, but its
    distances are in double precision.
    """
    lowest, highest = distances.amin(dim=-1, keepdim=True), distances.amax(dim=-1, keepdim=True)
    distances.sub_(lowest).div_(highest.sub_(lowest).clamp_(min=_FLAT))


def warp(rows: Tensor, sizes: Sequence[int], outside: Tensor) -> Tensor:
    """Scaled distances [R, N, gap + T] of K queries to the warping distance of each, [K, N].

    `sizes`: length of each query, longest first. `outside` [N, T]: what is behind a document's end.
    The gap is made infinite: a row of all documents is then one long row, and no path leads from
    one into the next.
    """
    rows[:, :, :_GAP] = torch.inf
    documents, width = rows.shape[1:]
    distances = rows.new_empty(len(sizes), documents)
    queries, frame, start = len(sizes), 1, len(sizes)
    total = rows[:queries].flatten().clone()
    other, best = torch.full_like(total, torch.inf), torch.empty_like(total[_GAP:])
    for size in sorted(set(sizes)):  # the shortest queries end here, the others go on
        count = queries * (size - frame)
        block = rows[start : start + count].view(size - frame, queries * documents * width)
        best = best[: block.shape[1] - _GAP]
        here, there = (
            (sums, sums[_GAP:], sums[1:-1], sums[:-_GAP])
            for sums in (total[: block.shape[1]], other[: block.shape[1]])
        )
        for row in block[:, _GAP:].unbind():
            torch.minimum(here[1], here[2], out=best)
            torch.minimum(best, here[3], out=best)
            torch.add(best, row, out=there[1])
            here, there = there, here
        total, other = here[0], there[0]
        longer = sum(length > size for length in sizes)
        ends = total.view(queries, documents, width)[longer:, :, _GAP:]
        distances[longer:queries] = ends.masked_fill(outside, torch.inf).amin(dim=-1) / size
        queries, frame, start = longer, size, start + count
    return distances


def search_scores(
    queries: Sequence[Tensor], documents: Sequence[Tensor], batch_cells: int = 2_000_000
) -> Tensor:
    """Minus the warping distance of every query ([Q, D]) in every document ([T, D]): [K, N].

    Queries and documents of similar length are aligned together, about `batch_cells` of [R, T] at a
    time: few enough to stay in the processor's cache.
    """
    scores = torch.zeros(len(queries), len(documents))
    longest = sorted(range(len(queries)), key=lambda k: -len(queries[k]))
    searched = [k for k in longest if len(queries[k]) >= SHORTEST_QUERY]
    if not searched or not documents:
        return scores
    groups = _groups([len(queries[k]) for k in searched], batch_cells // _COLUMNS)
    # rows are scaled to 0…1, so exp(-cos) = 2^(-cos / ln 2) serves for exp(1 - cos) - 1
    scale = -math.log2(math.e)
    packed = [pack_sequence([_unit(queries[searched[k]]) * scale for k in g]).data for g in groups]
    by_length = sorted(range(len(documents)), key=lambda n: -len(documents[n]))
    buffer = queries[0].new_empty(0)
    for members in _groups([len(documents[n]) for n in by_length], _COLUMNS):
        group = [by_length[n] for n in members]
        lengths = torch.tensor([len(documents[n]) for n in group])
        widest = int(lengths[0])
        places = torch.arange(-_GAP, widest).clamp(min=0).clamp(max=lengths[:, None] - 1)
        padded = torch.cat([_unit(documents[n])[row] for n, row in zip(group, places, strict=True)])
        outside = (torch.arange(widest) >= lengths[:, None]).to(padded.device)
        for group_queries, frames in zip(groups, packed, strict=True):
            # one buffer for all: fresh memory would cost more than the arithmetic
            size = len(frames) * len(padded)
            buffer = buffer if buffer.numel() >= size else padded.new_empty(size)
            rows = buffer[:size].view(len(frames), len(padded))
            torch.mm(frames, padded.T, out=rows).exp2_()
            rows = rows.view(len(frames), len(group), _GAP + widest)
            scale_rows(rows)
            numbers = [searched[k] for k in group_queries]
            distances = warp(rows, [len(queries[k]) for k in numbers], outside)
            scores[torch.tensor(numbers)[:, None], torch.tensor(group)] = -distances.to(scores)
    return scores


def _groups(sizes: Sequence[int], limit: int) -> list[list[int]]:
    """Indices of `sizes` (largest first) in rows, each at most `limit` in all or one alone."""
    groups: list[list[int]] = []
    for index in range(len(sizes)):
        if groups and (len(groups[-1]) + 1) * sizes[groups[-1][0]] <= limit:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def z_scores(scores: Tensor) -> Tensor:
    """[K, N]: each query's scores to mean 0 and deviation 1 (population) over the documents."""
    deviation = scores.std(dim=1, keepdim=True, correction=0).clamp(min=1e-9)
    return (scores - scores.mean(dim=1, keepdim=True)) / deviation
