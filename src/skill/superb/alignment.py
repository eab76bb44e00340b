"""Query by example: subsequence dynamic time warping, vectorised over documents.

Legend: Q query frames, T document frames, N documents, D width.

The step pattern is "asymmetric" with open begin and open end: D[i, j] = d[i, j] + min(D[i-1, j],
D[i-1, j-1], D[i-1, j-2]), D[0, j] = d[0, j]; the distance is min_j D[Q-1, j] / Q. A row needs only
the row before it, so that all frames of all documents advance together, one query frame a time.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_GAP = 2  # columns before each document: as far as one step reaches back
SHORTEST_QUERY = 5  # frames; shorter queries score 0, as in the protocol


def _unit(frames: Tensor) -> Tensor:
    return F.normalize(frames, dim=-1, eps=1e-12)


def cosine_exp(query: Tensor, documents: Tensor) -> Tensor:
    """exp(1 - cos) - 1 between all frames: [Q, D] and [..., T, D] to [..., Q, T]."""
    return (_unit(query) @ _unit(documents).mT).neg_().add_(1).expm1_()


def subsequence_distances(distances: Tensor, lengths: Tensor) -> Tensor:
    """[N, Q, T] frame distances and document lengths [N] to the warping distance of each, [N].

    Each row (query frame) is first brought to 0…1 over the document's frames; a constant row
    becomes 0.
    """
    outside = torch.arange(distances.shape[2], device=distances.device) >= lengths[:, None]
    filled = torch.where(outside[:, None], distances[:, :, :1], distances)
    first = filled[:, :, :1].expand(-1, -1, _GAP)
    return _warped(torch.cat([first, filled], dim=2).transpose(0, 1).contiguous(), outside)


def _warped(distances: Tensor, outside: Tensor) -> Tensor:
    """The same, in place, of contiguous distances [Q, N, gap + T].

    In the gap and behind its end, a document repeats frames of its own. The gap becomes infinite:
    a row of all documents is then one long row, and no path leads from one into the next.
    """
    lowest, highest = distances.amin(dim=2, keepdim=True), distances.amax(dim=2, keepdim=True)
    spread = highest - lowest
    distances.sub_(lowest).div_(torch.where(spread > 0, spread, 1))
    distances[:, :, :_GAP] = torch.inf
    rows = distances.flatten(1)
    best = rows.new_empty(rows.shape[1] - _GAP)
    here, there = (
        (total, total[_GAP:], total[1:-1], total[:-_GAP])
        for total in (rows[0].clone(), torch.full_like(rows[0], torch.inf))
    )
    for row in rows[1:, _GAP:].unbind():
        torch.minimum(here[1], here[2], out=best)
        torch.minimum(best, here[3], out=best)
        torch.add(best, row, out=there[1])
        here, there = there, here
    ends = here[0].view(distances.shape[1:])[:, _GAP:]
    return ends.masked_fill(outside, torch.inf).amin(dim=1) / len(distances)


def search_scores(
    queries: Sequence[Tensor], documents: Sequence[Tensor], batch_cells: int = 1_000_000
) -> Tensor:
    """Minus the warping distance of every query ([Q, D]) in every document ([T, D]): [N_q, N].

    Documents of similar length are aligned together, about `batch_cells` of [Q, N, T] at a time:
    few enough to stay in the processor's cache.
    """
    order = sorted(range(len(documents)), key=lambda n: documents[n].shape[0])
    scores = torch.zeros(len(queries), len(documents))
    # rows are scaled to 0…1, so exp(-cos) = 2^(-cos / ln 2) serves for exp(1 - cos) - 1
    asked = [
        (n, _unit(query) * -math.log2(math.e))
        for n, query in enumerate(queries)
        if len(query) >= SHORTEST_QUERY
    ]
    longest_query = max((len(query) for _, query in asked), default=1)
    while order and asked:
        group = [order.pop()]
        widest = documents[group[0]].shape[0]
        while order and (len(group) + 1) * widest * longest_query <= batch_cells:
            group.append(order.pop())
        lengths = torch.tensor([documents[n].shape[0] for n in group])
        places = torch.arange(-_GAP, widest).clamp(min=0).clamp(max=lengths[:, None] - 1)
        padded = torch.cat([_unit(documents[n])[row] for n, row in zip(group, places, strict=True)])
        turned = padded.T.contiguous()
        outside = (torch.arange(widest) >= lengths[:, None]).to(turned.device)
        # one buffer for all queries: fresh memory would cost more than the arithmetic
        room = turned.new_empty(longest_query, turned.shape[1])
        for n, query in asked:
            rows = torch.mm(query, turned, out=room[: len(query)]).exp2_()
            distances = rows.view(len(query), len(group), _GAP + widest)
            scores[n, group] = -_warped(distances, outside).to(scores)
    return scores


def normalised_states(groups: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """Frames [T, D] of queries and documents, each dimension to mean 0 and deviation 1 over all."""
    frames = torch.cat([states for group in groups for states in group])
    mean, deviation = frames.mean(dim=0), frames.std(dim=0).clamp(min=1e-9)
    return [[(states - mean) / deviation for states in group] for group in groups]


def z_scores(scores: Tensor) -> Tensor:
    """[N_q, N]: each query's scores to mean 0 and deviation 1 (population) over the documents."""
    deviation = scores.std(dim=1, keepdim=True, correction=0).clamp(min=1e-9)
    return (scores - scores.mean(dim=1, keepdim=True)) / deviation
