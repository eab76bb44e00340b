"""The commands `similarity` and `cluster`: from states to CKA, from CKA to clusters of layers.

Axes: L states.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skill.config.jobs import ActivationsJob
from skill.config.params import Clustering, Similarity
from skill.similarity.activations import stream
from skill.similarity.cka import cka
from skill.similarity.clustering import Array, Dendrogram, shuffled
from skill.similarity.clusters import write_clusters
from skill.similarity.layer_states import read_stacks
from skill.similarity.matrix import models, read_matrix, write_matrix
from skill.utils.errors import SkillError
from skill.utils.files import write_csv


def compare(activations: Sequence[Path], section: Similarity, output: Path) -> None:
    """Write CKA between all states in the files `activations` (several: of several teachers).

    Raises:
        SkillError: files that hold no states or other frames than the first; a state that is
            constant or not finite, named with teacher, state and utterance.
    """
    stack = read_stacks(activations).first(section.max_frames)
    matrix = cka(
        stack.states,
        section.estimator,
        kernel=section.kernel,
        bandwidth=section.bandwidth,
        standardize=section.standardize,
        names=stack.names,
    )
    write_matrix(output, stack.names, matrix.numpy())


def compare_streaming(
    teachers: Sequence[Path],
    manifests: Sequence[Path],
    calibration: ActivationsJob,
    section: Similarity,
    output: Path,
) -> None:
    """The same table in one pass over the audio, with nothing stored: see `activations.stream`.

    Raises:
        SkillError: as `compare`; or a kernel or number of frames that one pass does not allow.
    """
    if section.kernel != "linear":
        raise SkillError(f"similarity: the {section.kernel} kernel needs stored activations")
    if section.max_frames is not None:
        raise SkillError("similarity: max_frames belongs to stored activations")
    names, matrix = stream(
        teachers,
        manifests,
        calibration,
        estimator=section.estimator,
        standardize=section.standardize,
    )
    write_matrix(output, names, matrix.numpy())


def cluster(
    similarity: Path,
    section: Clustering,
    output: Path,
    table: Path,
    criterion: Path | None = None,
) -> None:
    """Write the groups (`output`, JSON), and the tables behind two figures.

    `output` has "layers", for each group its [model, layer] pairs, the merges as scipy's linkage
    matrix over the states "clustered", and the criterion's curve. `table` has one row per state,
    in the order of the dendrogram's leaves (see `rows`); `criterion` one row per number of groups.

    Raises:
        SkillError: no table of CKA, or groups that it does not allow.
    """
    names, matrix = read_matrix(similarity)
    try:
        tree = Dendrogram(
            matrix,
            section.linkage,
            section.contiguous,
            state0=section.state0,
            model_of_layer=models(names),
        )
        count = tree.chosen(section.num_clusters)
        groups = tree.cut(count)
        if section.shuffle is not None:
            groups = shuffled(groups, tree.clustered, section.shuffle)
    except SkillError as error:
        raise SkillError(f"{similarity}: {error}") from None
    curve = curve_rows(tree, count)
    write_clusters(
        output,
        [[names[state] for state in group] for group in groups],
        {
            "num_clusters": count,
            "settings": section.model_dump(),
            "clustered": [names[state] for state in tree.clustered],
            "linkage": tree.linkage_matrix.tolist(),
            "silhouette": [[row["clusters"], row["silhouette"]] for row in curve],
        },
    )
    write_csv(table, rows(names, matrix, tree, groups), columns(names))
    if criterion is not None:
        write_csv(criterion, curve, ["clusters", "silhouette", "height", "chosen"])


def columns(names: list[str]) -> list[str]:
    """Columns of the groups' table."""
    return ["state", "cluster", "left", "right", "height", *names]


def rows(
    names: list[str], matrix: Array, tree: Dendrogram, groups: list[list[int]]
) -> list[dict[str, Any]]:
    """The whole figure in one table: a row per state, its group and its CKA with every state.

    Rows stand in the order of the dendrogram's leaves, states that are not clustered first.
    `left`, `right` and `height` are the merges, one in each row until they end: 0, 1, ... are the
    clustered rows, the number of clustered rows plus m is the result of merge m (scipy's linkage).
    """
    order = leaf_order(tree)
    unclustered = [state for state in range(len(names)) if state not in tree.clustered]
    sequence = unclustered + [tree.clustered[position] for position in order]
    place = {position: row for row, position in enumerate(order)}
    group_of = {state: number for number, group in enumerate(groups) for state in group}
    table: list[dict[str, Any]] = []
    for row, state in enumerate(sequence):
        left: int | str = ""
        right: int | str = ""
        height: float | str = ""
        if row < len(tree.linkage_matrix):
            left, right = (place.get(int(node), int(node)) for node in tree.linkage_matrix[row, :2])
            height = float(tree.linkage_matrix[row, 2])
        table.append(
            {
                "state": names[state],
                "cluster": group_of.get(state, ""),
                "left": left,
                "right": right,
                "height": height,
            }
            | {names[other]: float(matrix[state, other]) for other in sequence}
        )
    return table


def leaf_order(tree: Dendrogram) -> list[int]:
    """Leaves from left to right: of two branches, the one with the shallower states first."""
    count = len(tree.clustered)
    leaves = {position: [position] for position in range(count)}
    for step, (left, right) in enumerate(tree.linkage_matrix[:, :2].astype(int)):
        branches = sorted((leaves.pop(left), leaves.pop(right)), key=lambda b: sum(b) / len(b))
        leaves[count + step] = branches[0] + branches[1]
    return next(iter(leaves.values()))


def curve_rows(tree: Dendrogram, chosen: int) -> list[dict[str, Any]]:
    """For each number of groups its silhouette, and the height of the merge that leads to it."""
    heights = tree.linkage_matrix[::-1, 2]
    singletons = len(tree.singletons)
    return [
        {
            "clusters": count,
            "silhouette": value,
            "height": float(heights[count - singletons - 1]),
            "chosen": int(count == chosen),
        }
        for count, value in tree.silhouette_curve()
    ]
