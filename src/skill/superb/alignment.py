"""Query by example: subsequence dynamic time warping, vectorised over documents.

Legend: Q query frames, T document frames, N documents, D width.

The step pattern is "asymmetric" with open begin and open end: D[i, j] = d[i, j] + min(D[i-1, j],
D[i-1, j-1], D[i-1, j-2]), D[0, j] = d[0, j]; the distance is min_j D[Q-1, j] / Q. A row needs only
the row before it, so that all frames of all documents advance together, one query frame a time.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

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
    return _warped(filled, outside)


def _warped(distances: Tensor, outside: Tensor) -> Tensor:
    """The same, in place, of distances that repeat one of a document's own frames behind it."""
    lowest, highest = distances.aminmax(dim=2, keepdim=True)
    spread = highest - lowest
    scaled = distances.sub_(lowest).div_(torch.where(spread > 0, spread, 1))
    total = scaled[:, 0]
    for row in scaled.unbind(dim=1)[1:]:
        best = row.new_empty(row.shape)
        torch.minimum(total[:, 1:], total[:, :-1], out=best[:, 1:])
        best[:, 0] = total[:, 0]
        torch.minimum(best[:, 2:], total[:, :-2], out=best[:, 2:])
        total = best.add_(row)
    return total.masked_fill(outside, torch.inf).amin(dim=1) / distances.shape[1]


def search_scores(
    queries: Sequence[Tensor], documents: Sequence[Tensor], batch_cells: int = 500_000
) -> Tensor:
    """Minus the warping distance of every query ([Q, D]) in every document ([T, D]): [N_q, N].

    Documents of similar length are aligned together, about `batch_cells` of [N, Q, T] at a time:
    few enough to stay in the processor's cache.
    """
    order = sorted(range(len(documents)), key=lambda n: documents[n].shape[0])
    scores = torch.zeros(len(queries), len(documents))
    asked = [(n, _unit(query)) for n, query in enumerate(queries) if len(query) >= SHORTEST_QUERY]
    longest_query = max((len(query) for _, query in asked), default=1)
    while order:
        group = [order.pop()]
        widest = documents[group[0]].shape[0]
        while order and (len(group) + 1) * widest * longest_query <= batch_cells:
            group.append(order.pop())
        lengths = torch.tensor([documents[n].shape[0] for n in group])
        places = torch.arange(widest).clamp(max=lengths[:, None] - 1)
        padded = torch.stack(
            [_unit(documents[n])[row] for n, row in zip(group, places, strict=True)]
        )
        outside = (torch.arange(widest) >= lengths[:, None]).to(padded.device)
        turned = padded.mT.contiguous()
        for n, query in asked:
            # rows are scaled to 0…1 next, so exp(-cos) serves for exp(1 - cos) - 1
            distances = (-query @ turned).exp_()
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
