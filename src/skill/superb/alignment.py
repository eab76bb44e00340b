"""Query by example: subsequence dynamic time warping, vectorised over documents.

Legend: Q query frames, T document frames, N documents, D width.

The step pattern is "asymmetric" with open begin and open end: D[i, j] = d[i, j] + min(D[i-1, j],
D[i-1, j-1], D[i-1, j-2]), D[0, j] = d[0, j]; the distance is min_j D[Q-1, j] / Q. A row needs only
the row before it, so that all frames of all documents advance together, one query frame a time.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

SHORTEST_QUERY = 5  # frames; shorter queries score 0, as in the protocol


def cosine_exp(query: Tensor, documents: Tensor) -> Tensor:
    """exp(1 - cos) - 1 between all frames: [Q, D] and [..., T, D] to [..., Q, T]."""
    normal = torch.nn.functional.normalize
    cosine = normal(query, dim=-1, eps=1e-12) @ normal(documents, dim=-1, eps=1e-12).mT
    return torch.expm1(1 - cosine)


def subsequence_distances(distances: Tensor, lengths: Tensor) -> Tensor:
    """[N, Q, T] frame distances and document lengths [N] to the warping distance of each, [N].

    Each row (query frame) is first brought to 0…1 over the document's frames; a constant row
    becomes 0.
    """
    frames = distances.shape[2]
    outside = torch.arange(frames, device=distances.device) >= lengths[:, None]
    lowest = distances.masked_fill(outside[:, None], torch.inf).amin(dim=2, keepdim=True)
    highest = distances.masked_fill(outside[:, None], -torch.inf).amax(dim=2, keepdim=True)
    spread = highest - lowest
    scaled = (distances - lowest) / torch.where(spread > 0, spread, 1)
    total = scaled[:, 0]
    for row in scaled.unbind(dim=1)[1:]:
        best = total.clone()
        torch.minimum(best[:, 1:], total[:, :-1], out=best[:, 1:])
        torch.minimum(best[:, 2:], total[:, :-2], out=best[:, 2:])
        total = best.add_(row)
    return total.masked_fill(outside, torch.inf).amin(dim=1) / distances.shape[1]


def search_scores(
    queries: Sequence[Tensor], documents: Sequence[Tensor], batch_frames: int = 200_000
) -> Tensor:
    """Minus the warping distance of every query ([Q, D]) in every document ([T, D]): [N_q, N]."""
    order = sorted(range(len(documents)), key=lambda n: documents[n].shape[0])
    scores = torch.zeros(len(queries), len(documents))
    long_enough = [n for n, query in enumerate(queries) if len(query) >= SHORTEST_QUERY]
    longest_query = max((len(queries[n]) for n in long_enough), default=1)
    while order:
        group = [order.pop()]
        widest = documents[group[0]].shape[0]
        while order and (len(group) + 1) * widest * longest_query <= batch_frames * 64:
            group.append(order.pop())
        lengths = torch.tensor([documents[n].shape[0] for n in group])
        padded = torch.nn.utils.rnn.pad_sequence([documents[n] for n in group], batch_first=True)
        lengths = lengths.to(padded.device)
        for n in long_enough:
            distance = subsequence_distances(cosine_exp(queries[n], padded), lengths)
            scores[n, group] = -distance.to(scores)
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
