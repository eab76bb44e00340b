"""How well layers were learned: closed forms, invariances, and an encoder against itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from skill.config.jobs import ActivationsJob
from skill.config.params import Activations, Corpus, Unlabelled
from skill.data.corpora.prepare import run as build
from skill.data.manifest import read_manifest, write_manifest
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.encoder.checkpoint import save_encoder
from skill.similarity.regression import errors, run, unexplained
from skill.utils.errors import SkillError
from skill.utils.files import read_csv, write_json

RNG = np.random.default_rng(0)
JOB = ActivationsJob(
    seed=1,
    unlabelled=Unlabelled(corpora=("beeps",), min_seconds=0.4),
    activations=Activations(seconds=60.0, max_frames=500),
)


def normal(*shape: int) -> NDArray[np.float64]:
    return RNG.standard_normal(shape)


OWNER = np.arange(6000) // 100


def test_noise_is_the_share_that_is_left() -> None:
    """Y = XW + noise: what no map can explain is the noise's share of the variance."""
    x, noise = normal(6000, 8), normal(6000, 5)
    signal = x @ normal(8, 5) + 7.0
    share = 0.25
    noise *= np.sqrt(share / (1 - share) * signal.var(0).sum() / 5)
    ((error, low, high, state),) = errors([normal(6000, 8), x], [signal + noise], OWNER)
    assert state == 1
    assert error == pytest.approx(share, abs=0.01)
    assert low < error < high


def test_a_layer_that_is_not_there_is_not_explained() -> None:
    rows = errors([normal(6000, 8)], [normal(6000, 5), np.ones((6000, 2)) * normal(6000, 1)], OWNER)
    assert all(error == pytest.approx(1.0, abs=0.02) for error, *_ in rows)


def test_maps_are_those_of_least_squares_and_do_not_see_shift_or_scale() -> None:
    x, y = normal(600, 4), normal(600, 3)
    y[:, 0] += x[:, 1]
    owner = np.arange(600) // 10
    fit = unexplained(x, [y], owner)
    train, test = owner % 2 == 0, owner % 2 == 1
    design = np.column_stack([x, np.ones(600)])
    weights, *_ = np.linalg.lstsq(design[train], y[train], rcond=None)
    left = np.square(y[test] - design[test] @ weights).sum()
    assert fit.residual.sum() == pytest.approx(left, rel=1e-3)
    assert fit.residual.shape == (30, 1)
    moved = unexplained(x * [1, 10, 0.1, 3] + 5, [y], owner)
    assert moved.residual.sum() == pytest.approx(fit.residual.sum(), rel=1e-9)


def test_a_dead_dimension_does_no_harm() -> None:
    x, y = normal(400, 4), normal(400, 2)
    dead = np.column_stack([x, np.zeros(400)])
    owner = np.arange(400) // 10
    assert unexplained(dead, [y], owner).residual.sum() == pytest.approx(
        unexplained(x, [y], owner).residual.sum(), rel=1e-9
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beeps, a random teacher, and a student that is the teacher's first block."""
    folder = tmp_path_factory.mktemp("regression")
    corpus = Corpus(kind="synthetic", speakers=4, sentences=30)
    build("beeps", corpus, folder / "beeps.csv", folder / "beeps.flac")
    torch.manual_seed(0)
    config = EncoderConfig.uniform("hubert", width=16, blocks=2, heads=2, ffn=24, conv=8)
    teacher = SpeechEncoder(config)
    student = SpeechEncoder(replace(config, heads=config.heads[:1], ffn=config.ffn[:1]))
    state = teacher.state_dict()
    student.load_state_dict({name: state[name] for name in student.state_dict()})
    save_encoder(teacher, folder / "teacher.safetensors")
    save_encoder(student, folder / "student.safetensors")
    targets = [
        {"teacher": [["teacher", "projection"]]},
        {"teacher": [["teacher", 1], ["teacher", 2]]},
    ]
    write_json(folder / "student.json", {"targets": targets})
    return folder


def test_copied_layers_are_known_and_the_missing_one_is_not(place: Path) -> None:
    run(
        place / "student.safetensors", [place / "teacher.safetensors"], place / "student.json",
        [place / "beeps.csv"], JOB, place / "out.csv",
    )  # fmt: skip
    rows = read_csv(place / "out.csv")
    assert [(r["teacher"], r["layer"], r["target"]) for r in rows] == [
        ("teacher", "0", ""), ("teacher", "1", "2"), ("teacher", "2", "2")
    ]  # fmt: skip
    values = [float(r["error"]) for r in rows]
    assert max(values[:2]) < 1e-3 < values[2] < 1
    assert [r["state"] for r in rows[:2]] == ["0", "1"]


def test_one_utterance_is_not_enough(place: Path, tmp_path: Path) -> None:
    kept = read_manifest(place / "beeps.csv")
    train = [u for u in kept if u.split != "dev"]
    write_manifest(tmp_path / "beeps.csv", [*train, next(u for u in kept if u.split == "dev")])
    with pytest.raises(SkillError, match=r"beeps.csv: a map and its test need two dev utterances"):
        run(
            place / "student.safetensors", [place / "teacher.safetensors"],
            place / "student.json", [tmp_path / "beeps.csv"], JOB, tmp_path / "out.csv",
        )  # fmt: skip
    assert not (tmp_path / "out.csv").exists()
