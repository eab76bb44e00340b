"""The four methods resolve to the targets that their papers describe."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from skill.config.methods import Distances, LayerTarget, Method
from skill.distillation.targets import build_targets
from skill.utils.errors import SkillError

L1_COSINE = Distances(l1=1.0, cosine=1.0)
ONE = {"a": (12, 768)}
TWO = {"a": (12, 768), "b": (12, 768)}
CLUSTERS = [[("a", 0)], [("a", 1), ("a", 2)], [("a", 3), ("a", 4), ("a", 5)]]

DPHUBERT = Method(
    prune=("conv", "head", "ffn"),
    targets=(
        LayerTarget(layer="projection"),
        *(LayerTarget(layer=n, projection="rest") for n in (4, 8, 12)),
    ),
    distances=L1_COSINE,
)
DISTILHUBERT = Method(
    start_blocks=2,
    targets=tuple(LayerTarget(layer=n, student="last") for n in (4, 8, 12)),
    head="mlp",
    distances=Distances(l1=1.0, log_sigmoid_cosine=1.0),
)


def test_skill_learns_the_mean_of_each_cluster_on_both_sides() -> None:
    targets = build_targets(Method(targets="clusters", distances=L1_COSINE), ONE, CLUSTERS)
    assert [t.teacher for t in targets] == [tuple(c) for c in CLUSTERS]
    assert [t.student for t in targets] == [(0,), (1, 2), (3, 4, 5)]
    assert len({t.projection for t in targets}) == 3
    assert [t.weight for t in targets] == pytest.approx([1 / 3] * 3)


def test_dphubert_shares_one_projection_except_for_layer_0() -> None:
    targets = build_targets(DPHUBERT, ONE)
    assert [t.student for t in targets] == [("projection",), (4,), (8,), (12,)]
    assert len({t.projection for t in targets}) == 2
    assert len({t.projection for t in targets[1:]}) == 1


def test_distilhubert_predicts_three_layers_from_the_last_state() -> None:
    targets = build_targets(DISTILHUBERT, ONE)
    assert [t.student for t in targets] == [(2,)] * 3
    assert len({t.projection for t in targets}) == 3
    twice = (LayerTarget(layer=12, student=1), LayerTarget(layer=12, student="last"))
    targets = build_targets(DISTILHUBERT.model_copy(update={"targets": twice}), ONE)
    assert len({t.projection for t in targets}) == 2  # one layer, two student sides


@pytest.mark.parametrize(
    ("across", "count", "aggregate", "layers"),
    [("mean", 3, "mean", 2), ("concat", 3, "concat", 2), ("each", 6, "mean", 1)],
)
def test_ekd_aggregates_teachers(across: str, count: int, aggregate: str, layers: int) -> None:
    targets = build_targets(DISTILHUBERT.model_copy(update={"across_teachers": across}), TWO)
    assert len(targets) == count == len({(t.projection, t.teacher) for t in targets})
    assert {t.aggregate for t in targets} == {aggregate}
    assert {len(t.teacher) for t in targets} == {layers}


def test_clusters_over_teachers_of_different_width_get_a_target_each() -> None:
    teachers = {"a": (12, 768), "b": (24, 1024)}
    mixed = [[("a", 1), ("a", 2), ("b", 4)], [("b", 5)]]
    targets = build_targets(Method(targets="clusters", distances=L1_COSINE), teachers, mixed)
    assert [t.teacher for t in targets] == [(("a", 1), ("a", 2)), (("b", 4),), (("b", 5),)]
    assert [t.student for t in targets] == [(1, 2), (1, 2), (3,)]  # at the same relative depth
    flat = build_targets(Method(targets="clusters", distances=L1_COSINE), teachers, [[("b", 1)]])
    assert flat[0].student == (1,)  # no block's output is learned by the input
    assert [t.weight for t in targets] == pytest.approx([0.25, 0.25, 0.5])


@given(
    st.sampled_from(["mean", "single", "each"]),
    st.sampled_from(["own", "shared", "none"]),
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
)
def test_weights_add_up_and_every_layer_is_learned_once(
    side: str, projection: str, sizes: list[int]
) -> None:
    numbers = iter(range(sum(sizes)))
    clusters = [[("a", next(numbers)) for _ in range(size)] for size in sizes]
    method = Method(
        targets="clusters",
        cluster_student=side,  # type: ignore[arg-type]
        cluster_projection=projection,  # type: ignore[arg-type]
        distances=L1_COSINE,
    )
    targets = build_targets(method, {"a": (sum(sizes), 32)}, clusters)
    assert sum(t.weight for t in targets) == pytest.approx(1)
    learned = sorted(layer for t in targets for layer in t.teacher)
    assert learned == sorted(layer for c in clusters for layer in c)
    if side == "single":
        assert all(len(t.student) == 1 for t in targets)


def test_errors_say_which_layer() -> None:
    with pytest.raises(SkillError, match="teacher a has no layer 8"):
        build_targets(DPHUBERT, {"a": (6, 32)})
    with pytest.raises(SkillError, match="student has no layer 3"):
        third = (LayerTarget(layer=4, student=3),)
        build_targets(DISTILHUBERT.model_copy(update={"targets": third}), ONE)
    with pytest.raises(SkillError, match="start_blocks is 2, but a has 1 blocks"):
        build_targets(DISTILHUBERT, {"a": (1, 32)})
    with pytest.raises(ValidationError, match="which start_blocks does not have"):
        Method(start_blocks=2, targets="clusters", distances=L1_COSINE)
    plain = Method(targets="clusters", cluster_projection="none", distances=L1_COSINE)
    with pytest.raises(SkillError, match="a student of width 32 learns none of 64"):
        build_targets(plain, {"a": (2, 32), "b": (2, 64)}, [[("a", 1)], [("b", 1)]])
    with pytest.raises(SkillError, match="no clustering"):
        build_targets(Method(targets="clusters", distances=L1_COSINE), ONE)
    with pytest.raises(SkillError, match="widths"):
        build_targets(DISTILHUBERT, {"a": (12, 32), "b": (12, 64)})
