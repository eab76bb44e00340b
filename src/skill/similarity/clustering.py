"""Layers that carry the same information, found by agglomerative clustering on 1 - CKA.

The distance 1 - CKA is half the squared Euclidean distance between two centred kernels of unit
norm, so it is small where two layers see the same frames as alike. Average, complete and single
linkage take any distance. Ward's criterion is defined for Euclidean distances; on 1 - CKA it is
the usual heuristic, and its heights are no variances.

Axes: L states, K clusters.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage as scipy_linkage  # type: ignore[import-untyped]
from scipy.spatial.distance import squareform  # type: ignore[import-untyped]
from sklearn.metrics import silhouette_score

from skill.utils.errors import SkillError

LINKAGES = ("average", "complete", "single", "ward")
STATE0 = ("clustered", "own", "omitted")

Array = NDArray[np.float64]
Groups = list[list[int]]


def group_layers(
    cka: Any, num_clusters: int | Literal["auto"], linkage: str = "average", **options: Any
) -> Groups:
    """Group states into `num_clusters` clusters: lists of state numbers, ordered by first member.

    `cka` is [L, L]; "auto" is the number with the highest silhouette. `options`: `Dendrogram`'s.

    Raises:
        SkillError: an unknown option, a matrix that is no CKA, or an impossible number of clusters.
    """
    tree = Dendrogram(cka, linkage, **options)
    return tree.cut(tree.chosen(num_clusters))


def shuffled(groups: Groups, states: Sequence[int], seed: int) -> Groups:
    """Groups of the same sizes whose members among `states` have changed places at random.

    What similarity is worth: a student of these learns as many means of as many layers.
    """
    order = np.random.default_rng(seed).permutation(len(states))
    place = {state: states[position] for state, position in zip(states, order, strict=True)}
    return sorted(sorted(place.get(state, state) for state in group) for group in groups)


class Dendrogram:
    """The merges of one clustering, cut at any number of clusters.

    `clustered` are the states that merge, `singletons` those that are a group of their own,
    `linkage_matrix` [len(clustered) - 1, 4] is scipy's, over the positions in `clustered`.

    Args:
        cka: [L, L].
        contiguous: admit only clusters that are contiguous in depth.
        state0: whether state 0 is clustered like the others, is a group of its "own", or is
            "omitted".
        model_of_layer: [L], the model that each state belongs to, where there are several; the
            states of one model stand in order of depth, and each model has its state 0.

    Raises:
        SkillError: an unknown option, or a matrix that is no CKA.
    """

    def __init__(
        self,
        cka: Any,
        linkage: str = "average",
        contiguous: bool = False,
        *,
        state0: str = "clustered",
        model_of_layer: Sequence[int] | None = None,
    ) -> None:
        matrix = _checked(cka)
        model_of_layer = list(model_of_layer) if model_of_layer is not None else [0] * len(matrix)
        if linkage not in LINKAGES:
            raise SkillError(f"clustering: linkage `{linkage}` is not one of {list(LINKAGES)}")
        if state0 not in STATE0:
            raise SkillError(f"clustering: state0 `{state0}` is not one of {list(STATE0)}")
        if len(model_of_layer) != len(matrix):
            raise SkillError(
                f"clustering: {len(model_of_layer)} models are given for {len(matrix)} states"
            )
        firsts = [model_of_layer.index(model) for model in dict.fromkeys(model_of_layer)]
        self.singletons = firsts if state0 == "own" else []
        self.clustered = [
            state for state in range(len(matrix)) if state0 == "clustered" or state not in firsts
        ]
        if not self.clustered:
            raise SkillError("clustering: there is no state left to cluster")
        distances = 1 - matrix[np.ix_(self.clustered, self.clustered)]
        np.fill_diagonal(distances, 0.0)
        self.distances = np.maximum((distances + distances.T) / 2, 0.0)
        if len(self.clustered) == 1:
            self.linkage_matrix: Array = np.zeros((0, 4))
        elif contiguous:
            self.linkage_matrix = _contiguous(
                self.distances, linkage, [model_of_layer[s] for s in self.clustered]
            )
        else:
            self.linkage_matrix = scipy_linkage(squareform(self.distances, checks=False), linkage)

    def cut(self, num_clusters: int) -> Groups:
        """Exactly `num_clusters` groups, `singletons` among them: the first merges, in order.

        Raises:
            SkillError: the number is no integer, or there are not that many groups to be had.
        """
        least, most = 1 + len(self.singletons), len(self.clustered) + len(self.singletons)
        if isinstance(num_clusters, bool) or not isinstance(num_clusters, int | np.integer):
            raise SkillError(f"clustering: num_clusters is `{num_clusters}`: a number or auto")
        if not least <= num_clusters <= most:
            raise SkillError(
                f"clustering: {num_clusters} clusters were asked for; "
                f"these states allow {least} to {most}"
            )
        groups = {position: [state] for position, state in enumerate(self.clustered)}
        for step in range(most - int(num_clusters)):
            left, right = (int(node) for node in self.linkage_matrix[step, :2])
            groups[len(self.clustered) + step] = groups.pop(left) + groups.pop(right)
        return sorted([sorted(group) for group in groups.values()] + [[s] for s in self.singletons])

    def silhouette_curve(self) -> list[tuple[int, float]]:
        """(number of groups, mean silhouette) for each number that a silhouette is defined for."""
        curve: list[tuple[int, float]] = []
        place = {state: position for position, state in enumerate(self.clustered)}
        for count in range(2, len(self.clustered)):
            labels = np.empty(len(self.clustered), dtype=int)
            groups = [g for g in self.cut(count + len(self.singletons)) if g[0] in place]
            for label, group in enumerate(groups):
                labels[[place[state] for state in group]] = label
            value = silhouette_score(self.distances, labels, metric="precomputed")
            curve.append((count + len(self.singletons), float(value)))
        return curve

    def chosen(self, num_clusters: int | Literal["auto"]) -> int:
        """`num_clusters`, which counts all groups, or the best number where it is "auto"."""
        return self.best_num_clusters() if num_clusters == "auto" else num_clusters

    def best_num_clusters(self) -> int:
        """The number with the highest mean silhouette (Rousseeuw 1987); of equal ones the smaller.

        Silhouette, because it needs distances only (the gap statistic needs features and a null
        distribution, which a CKA matrix has not), needs no resamples (as stability does), and
        judges every linkage and constraint by the same measure (heights of different linkages
        cannot be compared, and a contiguous tree's may go down). Where layers drift smoothly, no
        number stands out and it tends to two: look at the curve.
        """
        curve = self.silhouette_curve()
        if not curve:
            return len(self.singletons) + len(self.clustered)
        highest = max(value for _, value in curve)
        return next(count for count, value in curve if value >= highest - 1e-12)


def _checked(cka: Any) -> Array:
    matrix = np.asarray(cka, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise SkillError(f"clustering: a CKA matrix is square, this one is {list(matrix.shape)}")
    if not np.isfinite(matrix).all():
        row, column = np.argwhere(~np.isfinite(matrix))[0]
        raise SkillError(f"clustering: the CKA of states {row} and {column} is not finite")
    if np.abs(matrix - matrix.T).max() > 1e-6 or np.abs(np.diag(matrix) - 1).max() > 1e-6:
        raise SkillError("clustering: a CKA matrix is symmetric with a diagonal of 1; this is not")
    return matrix


def _contiguous(distances: Array, linkage: str, model_of_layer: Sequence[int]) -> Array:
    """Linkage matrix whose clusters are all contiguous in depth; heights may go down.

    Draw an arrow from the cluster of each state to the cluster of the next state of the same
    model. Two clusters may merge if no cycle comes of it. For one model that means neighbours
    only. For several it also keeps clusters from crossing: none is above another in one model and
    below it in a second. Some pair may always merge: neighbours in an order along the arrows.
    """
    count = len(distances)
    chains = [
        [p for p, s in enumerate(model_of_layer) if s == model]
        for model in dict.fromkeys(model_of_layer)
    ]
    between = {(a, b): distances[a, b] for a in range(count) for b in range(a + 1, count)}
    members = {position: [position] for position in range(count)}
    merges = np.zeros((count - 1, 4))
    for step, node in enumerate(range(count, 2 * count - 1)):
        ranked = sorted((value, pair) for pair, value in between.items())
        height, (left, right) = next(
            (value, (a, b)) for value, (a, b) in ranked if _orderly(members, chains, a, b)
        )
        sizes = len(members[left]), len(members[right])
        members[node] = members.pop(left) + members.pop(right)
        merges[step] = left, right, height, len(members[node])
        del between[left, right]
        for other in members.keys() - {node}:
            near = [between.pop((min(x, other), max(x, other))) for x in (left, right)]
            between[other, node] = _updated(near, height, sizes, len(members[other]), linkage)
    return merges


def _orderly(members: dict[int, list[int]], chains: list[list[int]], a: int, b: int) -> bool:
    cluster = {p: (a if node == b else node) for node, group in members.items() for p in group}
    below: dict[int, set[int]] = {node: set() for node in cluster.values()}
    for chain in chains:
        for first, second in pairwise(chain):
            if cluster[first] != cluster[second]:
                below[cluster[second]].add(cluster[first])
    while free := [node for node, before in below.items() if not before]:
        for node in free:
            del below[node]
        for before in below.values():
            before.difference_update(free)
    return not below


def _updated(
    near: Iterable[float], height: float, sizes: tuple[int, int], other: int, linkage: str
) -> float:
    """Distance of a third cluster to a merged one (Lance and Williams 1967), as scipy has it."""
    (x, y), (n, m) = near, sizes
    if linkage == "single":
        return min(x, y)
    if linkage == "complete":
        return max(x, y)
    if linkage == "average":
        return (n * x + m * y) / (n + m)
    squared = (n + other) * x**2 + (m + other) * y**2 - other * height**2
    return float(np.sqrt(max(squared, 0.0) / (n + m + other)))
