"""Groups against cases worked by hand and scipy; the constraint on depth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster
from scipy.cluster.hierarchy import linkage as scipy_linkage
from scipy.spatial.distance import squareform

from skill.similarity.clustering import LINKAGES, Dendrogram, group_layers, shuffled
from skill.utils.errors import SkillError


def matrix(seed: int, count: int) -> np.ndarray:
    """A random matrix with the properties of a CKA matrix."""
    points = np.random.default_rng(seed).gamma(0.5, size=(count, 12)) + 1e-3
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    similarity = points @ points.T
    np.fill_diagonal(similarity, 1.0)
    return (similarity + similarity.T) / 2


# Two blocks {0, 1} and {3, 4} with state 2 between them, a little nearer to the second.
BY_HAND = np.array(
    [
        [1.0, 0.9, 0.5, 0.2, 0.1],
        [0.9, 1.0, 0.6, 0.3, 0.2],
        [0.5, 0.6, 1.0, 0.7, 0.6],
        [0.2, 0.3, 0.7, 1.0, 0.95],
        [0.1, 0.2, 0.6, 0.95, 1.0],
    ]
)


@pytest.mark.parametrize("linkage", LINKAGES)
def test_worked_by_hand(linkage: str) -> None:
    assert group_layers(BY_HAND, 5, linkage) == [[0], [1], [2], [3], [4]]
    assert group_layers(BY_HAND, 4, linkage) == [[0], [1], [2], [3, 4]]
    assert group_layers(BY_HAND, 3, linkage) == [[0, 1], [2], [3, 4]]
    assert group_layers(BY_HAND, 2, linkage) == [[0, 1], [2, 3, 4]]
    assert group_layers(BY_HAND, 1, linkage) == [[0, 1, 2, 3, 4]]


def test_auto_is_the_highest_silhouette() -> None:
    tree = Dendrogram(BY_HAND)
    curve = dict(tree.silhouette_curve())
    # {0,1}, {2,3,4}: a and b by hand from the distances 1 - CKA.
    expected = [
        (1 - 0.1 / ((0.5 + 0.8 + 0.9) / 3)),
        (1 - 0.1 / ((0.4 + 0.7 + 0.8) / 3)),
        (1 - 0.35 / 0.45),
        (1 - 0.175 / 0.75),
        (1 - 0.225 / 0.85),
    ]
    assert curve[2] == pytest.approx(np.mean(expected))
    assert group_layers(BY_HAND, "auto") == tree.cut(max(curve, key=lambda k: curve[k]))
    assert group_layers(np.ones((2, 2)), "auto") == [[0], [1]]
    assert group_layers(np.ones((6, 6)), "auto") == tree_of_equals()


def tree_of_equals() -> list[list[int]]:
    return Dendrogram(np.ones((6, 6))).cut(2)


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(3, 14), st.sampled_from(LINKAGES), st.data())
def test_equals_scipy(seed: int, count: int, linkage: str, data: st.DataObject) -> None:
    similarity = matrix(seed, count)
    clusters = data.draw(st.integers(1, count))
    tree = scipy_linkage(squareform(1 - similarity, checks=False), linkage)
    labels = fcluster(tree, clusters, "maxclust")
    expected = sorted(np.flatnonzero(labels == label).tolist() for label in np.unique(labels))
    assert group_layers(similarity, clusters, linkage) == expected


@pytest.mark.parametrize("linkage", LINKAGES)
def test_ties_still_give_the_number_asked_for(linkage: str) -> None:
    for clusters in range(1, 8):
        assert len(group_layers(np.ones((7, 7)), clusters, linkage)) == clusters
        assert len(group_layers(np.ones((7, 7)), clusters, linkage, contiguous=True)) == clusters


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(2, 14), st.sampled_from(LINKAGES), st.data())
def test_contiguous_groups_are_runs(seed: int, count: int, linkage: str, data) -> None:
    clusters = data.draw(st.integers(1, count))
    groups = group_layers(matrix(seed, count), clusters, linkage, contiguous=True)
    assert len(groups) == clusters
    assert [state for group in groups for state in group] == list(range(count))


@settings(max_examples=40)
@given(
    st.integers(0, 2**31),
    st.lists(st.integers(1, 6), min_size=2, max_size=3),
    st.sampled_from(LINKAGES),
    st.data(),
)
def test_contiguous_groups_of_several_models_are_runs_that_do_not_cross(
    seed: int, depths: list[int], linkage: str, data
) -> None:
    stacks = [stack for stack, depth in enumerate(depths) for _ in range(depth)]
    clusters = data.draw(st.integers(1, len(stacks)))
    groups = group_layers(
        matrix(seed, len(stacks)), clusters, linkage, contiguous=True, model_of_layer=stacks
    )
    assert len(groups) == clusters
    runs = []
    for group in groups:
        run = {}
        for stack in range(len(depths)):
            members = [state for state in group if stacks[state] == stack]
            if members:
                assert members == list(range(members[0], members[-1] + 1))
                run[stack] = members[0]
        runs.append(run)
    for one in runs:
        for two in runs:
            shared = one.keys() & two.keys()
            assert len({one[stack] < two[stack] for stack in shared if one is not two}) <= 1


def test_without_constraint_in_the_way_contiguous_changes_nothing() -> None:
    for linkage in LINKAGES:
        for clusters in range(1, 6):
            free = group_layers(BY_HAND, clusters, linkage)
            assert group_layers(BY_HAND, clusters, linkage, contiguous=True) == free
        free_tree, bound_tree = (
            Dendrogram(BY_HAND, linkage),
            Dendrogram(BY_HAND, linkage, contiguous=True),
        )
        np.testing.assert_allclose(bound_tree.linkage_matrix[:, 2], free_tree.linkage_matrix[:, 2])


def test_state_zero_is_clustered_own_or_omitted() -> None:
    assert group_layers(BY_HAND, 3, state0="own") == [[0], [1], [2, 3, 4]]
    assert group_layers(BY_HAND, 2, state0="omitted") == [[1], [2, 3, 4]]
    both = np.kron(np.ones((2, 2)), BY_HAND)
    stacks = [0] * 5 + [1] * 5
    assert group_layers(both, 4, state0="own", model_of_layer=stacks) == [
        [0],
        [1, 6],
        [2, 3, 4, 7, 8, 9],
        [5],
    ]
    assert group_layers(both, 2, state0="omitted", model_of_layer=stacks) == [
        [1, 6],
        [2, 3, 4, 7, 8, 9],
    ]
    assert group_layers(both, 2, model_of_layer=stacks) == [[0, 1, 5, 6], [2, 3, 4, 7, 8, 9]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_clusters": 6}, "allow 1 to 5"),
        ({"num_clusters": 0}, "allow 1 to 5"),
        ({"num_clusters": 1, "state0": "own"}, "allow 2 to 5"),
        ({"num_clusters": 5, "state0": "omitted"}, "allow 1 to 4"),
        ({"num_clusters": "many"}, "`many`"),
        ({"num_clusters": True}, "`True`"),
        ({"num_clusters": 2, "linkage": "centroid"}, "linkage `centroid`"),
        ({"num_clusters": 2, "state0": "gone"}, "state0 `gone`"),
        ({"num_clusters": 2, "model_of_layer": [0]}, "1 models"),
    ],
)
def test_errors_in_words(arguments: dict, words: str) -> None:
    with pytest.raises(SkillError, match=words):
        group_layers(BY_HAND, **arguments)


def test_a_matrix_that_is_no_cka_is_an_error() -> None:
    for bad, words in [
        (BY_HAND[:3], "square"),
        (np.where(BY_HAND == 0.7, np.nan, BY_HAND), "states 2 and 3"),
        (np.triu(BY_HAND), "symmetric"),
        (BY_HAND * 2, "diagonal"),
    ]:
        with pytest.raises(SkillError, match=words):
            group_layers(bad, 2)


@given(st.integers(0, 100), st.integers(1, 9))
def test_shuffled_groups_keep_sizes_and_what_is_not_clustered(seed: int, count: int) -> None:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, count, 9)
    groups = [[0], *([int(s) + 1 for s in np.flatnonzero(labels == n)] for n in np.unique(labels))]
    mixed = shuffled(groups, range(1, 10), seed)
    assert sorted(map(len, mixed)) == sorted(map(len, groups))
    assert sorted(state for group in mixed for state in group) == list(range(10))
    assert [0] in mixed and mixed == shuffled(groups, range(1, 10), seed)
