"""What the student predicts: sums while the layers run, every target against its definition."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skill.config.methods import Distances, LayerTarget, Method
from skill.config.training import Stage1
from skill.data.batches import Batch, BatchPlan
from skill.distillation import gates
from skill.distillation.distiller import Distiller, layer_means, projection_key
from skill.distillation.losses import distance
from skill.distillation.sparsity import SparsityTarget
from skill.distillation.student import start_student
from skill.distillation.targets import build_targets
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.utils.errors import SkillError

L1_COSINE = Distances(l1=1.0, cosine=1.0)
STAGE = Stage1(steps=10, warmup=1, learning_rate=1e-3, gate_learning_rate=0.02)
WAVEFORMS = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))


def encoder(seed: int, *, width: int = 32, blocks: int = 4, family: str = "wavlm") -> SpeechEncoder:
    torch.manual_seed(seed)
    config = EncoderConfig.uniform(
        family,  # type: ignore[arg-type]
        width=width, blocks=blocks, heads=2, ffn=48, conv=16, pos_conv_kernel=16, pos_conv_groups=4,
    )  # fmt: skip
    return SpeechEncoder(config).eval()


def build(method: Method, clusters: Any = None, **teachers: SpeechEncoder) -> Distiller:
    sizes = {name: (t.config.num_blocks, t.config.width) for name, t in teachers.items()}
    first = next(iter(teachers.values()))
    student = start_student(first, method.start_blocks)
    targets = build_targets(method, sizes, clusters)
    return Distiller(student, teachers, targets, method, STAGE).eval()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), min_size=1, unique=True), min_size=1, max_size=4))
@torch.no_grad()
def test_running_means_are_the_means_of_the_states(groups: list[list[int]]) -> None:
    model = encoder(0)
    states, _ = model(WAVEFORMS)
    for mean, group in zip(layer_means(model.iterate(WAVEFORMS), groups), groups, strict=True):
        torch.testing.assert_close(mean, torch.stack([states[i] for i in group]).mean(0))


def test_layers_that_do_not_exist_are_named() -> None:
    with pytest.raises(ValueError, match="7"):
        layer_means(encoder(0).iterate(WAVEFORMS), [[7]])


@torch.no_grad()
def test_the_teacher_itself_is_the_perfect_student() -> None:
    """A whole copy with identity projections has L1 = 0 and cosine 1, so the loss is −1."""
    method = Method(targets="clusters", distances=L1_COSINE)
    clusters = [[("a", 0), ("a", 1)], [("a", 2), ("a", 3), ("a", 4)]]
    distiller = build(method, clusters, a=encoder(1))
    assert distiller.distill(WAVEFORMS)["loss"].item() == pytest.approx(-1, abs=1e-4)


@torch.no_grad()
def test_the_loss_is_the_weighted_sum_over_the_targets() -> None:
    method = Method(targets="clusters", distances=L1_COSINE)
    clusters = [[("a", 0), ("b", 1)], [("a", 3), ("a", 4)]]
    teachers = {"a": encoder(1), "b": encoder(2, family="hubert")}
    distiller = build(method, clusters, **teachers)
    distiller.student.load_state_dict(encoder(3).state_dict())
    found = distiller.distill(WAVEFORMS)
    a, b, s = (m(WAVEFORMS)[0] for m in (teachers["a"], teachers["b"], distiller.student))
    weights = method.distances.model_dump()
    first = distance((s[0] + s[1]) / 2, (a[0] + b[1]) / 2, weights)
    second = distance((s[3] + s[4]) / 2, (a[3] + a[4]) / 2, weights)
    torch.testing.assert_close(found["target0"], first)
    torch.testing.assert_close(found["target1"], second)
    torch.testing.assert_close(found["loss"], (first + second) / 2)


@torch.no_grad()
def test_concatenation_over_teachers_of_any_width() -> None:
    method = Method(
        start_blocks=2,
        targets=(LayerTarget(layer=4, student="last"),),
        across_teachers="concat",
        head="mlp",
        distances=Distances(l1=1.0, log_sigmoid_cosine=1.0),
    )
    teachers = {"a": encoder(1), "b": encoder(2, width=48, family="hubert")}
    distiller = build(method, **teachers)
    assert distiller.student.config.num_blocks == 2
    (want,) = distiller._teacher_targets(WAVEFORMS)
    both = [t(WAVEFORMS)[0][4] for t in teachers.values()]
    torch.testing.assert_close(want, torch.cat(both, dim=-1))
    key = projection_key(str(distiller.targets[0].projection))
    assert distiller.projections[key](distiller.student(WAVEFORMS)[0][2]).shape[-1] == 80


def test_gradients_reach_student_projections_gates_and_multipliers_but_no_teacher() -> None:
    method = Method(prune=("conv", "head", "ffn"), targets="clusters", distances=L1_COSINE)
    clusters = [[("a", 0), ("a", 1)], [("a", 2), ("a", 3), ("a", 4)]]
    teacher = encoder(1)
    student = start_student(teacher, None)
    gates.attach(student, method.prune)
    targets = build_targets(method, {"a": (4, 32)}, clusters)
    sparsity = SparsityTarget(student, 0.5, ramp=0)
    distiller = Distiller(student, {"a": teacher}, targets, method, STAGE, sparsity)
    distiller.begin_step(3)
    lengths = torch.full((2,), 4000)
    losses = distiller.losses(Batch(BatchPlan((), (), None), WAVEFORMS, lengths), 3)
    losses["loss"].backward()
    groups = distiller.parameter_groups()
    assert [group["lr"] for group in groups] == [1e-3, 0.02, 0.02]
    assert [group.get("maximize", False) for group in groups] == [False, False, True]
    for group in groups:
        assert all(p.grad is not None for p in group["params"])
    assert all(p.grad is None for p in teacher.parameters())
    named = sum(p.numel() for group in groups for p in group["params"])
    assert named == sum(p.numel() for p in distiller.parameters())
    assert {"distillation", "sparsity", "target_sparsity", "lambda1", "lambda2"} <= losses.keys()


def test_a_student_cannot_have_more_blocks_than_its_teacher() -> None:
    with pytest.raises(SkillError, match="5 blocks, but the teacher has 4"):
        start_student(encoder(0), 5)


def test_dropout_of_a_student_is_asked_for_or_its_teachers() -> None:
    teacher = encoder(0)
    teacher.config = replace(teacher.config, activation_dropout=0.3, hidden_dropout=0.2)
    assert start_student(teacher, 1).config.hidden_dropout == 0.2
    own = start_student(teacher, None, 0.25)
    places = ("projection_dropout", "attention_dropout", "hidden_dropout", "activation_dropout")
    assert [getattr(own.config, place) for place in places] == [0.25, 0.25, 0.25, 0.0]
    rates = {m.p for m in own.modules() if isinstance(m, torch.nn.Dropout)}
    assert rates == {0.25, 0.0} and own.blocks[0].attention.dropout == 0.25


def test_compiled_blocks_give_the_same_losses_and_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also at a second length, and the names of a checkpoint are the same.

    With the backend that makes no machine code: that alone would take minutes.
    """
    torch.compiler.reset()
    compiled_blocks = []

    def traced(module: torch.nn.Module, dynamic: bool) -> None:
        compiled_blocks.append(module)
        module._compiled_call_impl = torch.compile(
            module._call_impl, dynamic=dynamic, backend="aot_eager"
        )

    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    method = Method(targets="clusters", distances=L1_COSINE)
    clusters = [[("a", 0), ("a", 1)], [("a", 2)]]
    pair = []
    for compiled in (False, True):
        teacher, student = encoder(1, blocks=2), encoder(2, blocks=2)
        targets = build_targets(method, {"a": (2, 32)}, clusters)
        stage = STAGE.model_copy(update={"compile": compiled})
        made = Distiller(student, {"a": teacher}, targets, method, stage).eval()
        losses = [made.distill(WAVEFORMS[:, :length])["loss"] for length in (4000, 2500)]
        torch.stack(losses).sum().backward()
        pair.append((made, losses))
    assert len(compiled_blocks) == 4
    (plain, wanted), (made, found) = pair
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert made.state_dict().keys() == plain.state_dict().keys()
    for (name, one), (_, other) in zip(
        plain.named_parameters(), made.named_parameters(), strict=True
    ):
        if one.grad is not None:
            assert other.grad is not None
            assert float((one.grad - other.grad).norm()) <= 1e-3 * float(one.grad.norm()) + 1e-6, (
                name
            )
