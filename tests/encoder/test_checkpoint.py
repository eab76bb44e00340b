"""Encoders come back from files as they were; every wrong tensor is named."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.encoders import gated, pair, reference_states, utterances
from safetensors.torch import load_file, save_file

from skill.config.params import RandomEncoder, Teacher
from skill.distillation.pruning import prune
from skill.encoder import checkpoint
from skill.encoder.checkpoint import load_encoder
from skill.teachers.fetch import run_teacher
from skill.utils.errors import SkillError


@pytest.mark.parametrize("family", ["wavlm", "hubert", "wav2vec2"])
@torch.no_grad()
def test_a_transformers_folder_loads(tmp_path: Path, family: str) -> None:
    reference, _ = pair(family, large=False)
    reference.save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path)
    waveforms, _ = utterances([6000], torch.float32)
    theirs = reference_states(reference, waveforms, None)
    for own, their in zip(encoder(waveforms)[0], theirs, strict=True):
        torch.testing.assert_close(own, their, rtol=1e-4, atol=1e-5)


def test_pickled_weights_and_the_old_spelling_of_weight_norm(tmp_path: Path) -> None:
    reference, encoder = pair("hubert", large=False)
    reference.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    old = {
        f"hubert.{name}".replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for name, value in reference.state_dict().items()
    }
    torch.save(old | {"lm_head.weight": torch.zeros(3, 64)}, tmp_path / "pytorch_model.bin")
    loaded = load_encoder(tmp_path).state_dict()
    for name, value in encoder.state_dict().items():
        assert torch.equal(loaded[name], value), name


def test_code_in_a_pickle_does_not_run(tmp_path: Path) -> None:
    reference, _ = pair("hubert", large=False)
    reference.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()

    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "exploded"),)

    torch.save({"x": Bomb()}, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=True)
    with pytest.raises(SkillError, match="weights that cannot be read"):
        load_encoder(tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_a_pruned_student_survives_a_round_trip(tmp_path: Path) -> None:
    student = prune(gated("wavlm", ("conv", "head", "ffn")))
    checkpoint.save_encoder(student, tmp_path / "student.safetensors")
    checkpoint.save_folder(student, tmp_path / "folder")
    for path in (tmp_path / "student.safetensors", tmp_path / "folder"):
        again = load_encoder(path)
        assert again.config == student.config
        for name, value in student.state_dict().items():
            assert torch.equal(again.state_dict()[name], value), name


def test_the_same_encoder_gives_the_same_bytes(tmp_path: Path) -> None:
    _, encoder = pair("wavlm", large=False)
    for name in ("a", "b"):
        checkpoint.save_encoder(encoder, tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.pop("encoder.layer_norm.weight"), "encoder.layer_norm.weight is missing"),
        (lambda t: t.update(hat=torch.ones(1)), "hat belongs to no part"),
        (
            lambda t: t.update({"encoder.layer_norm.bias": torch.ones(3)}),
            r"encoder.layer_norm.bias has the shape \[3\] instead of \[64\]",
        ),
        (
            lambda t: t["encoder.layers.1.attention.q_proj.weight"].fill_(float("nan")),
            "encoder.layers.1.attention.q_proj.weight has values that are not finite",
        ),
    ],
)
def test_every_wrong_tensor_is_named(tmp_path: Path, spoil: Any, message: str) -> None:
    reference, _ = pair("wavlm", large=False)
    reference.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    spoil(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(SkillError, match=message):
        load_encoder(tmp_path)


def test_what_is_no_encoder_says_so(tmp_path: Path) -> None:
    with pytest.raises(SkillError, match="no such file"):
        load_encoder(tmp_path / "none.safetensors")
    (tmp_path / "noise.safetensors").write_bytes(b"no tensors here")
    with pytest.raises(SkillError, match="not a readable safetensors file"):
        load_encoder(tmp_path / "noise.safetensors")
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(SkillError, match="model_type is 'bert'"):
        load_encoder(folder)


def test_another_activation_is_refused(tmp_path: Path) -> None:
    reference, _ = pair("hubert", large=False)
    reference.config.hidden_act = "relu"
    reference.save_pretrained(tmp_path)
    with pytest.raises(SkillError, match="hidden_act is 'relu'"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("large", [False, True])
def test_only_models_with_layer_norms_normalise_waveforms(tmp_path: Path, large: bool) -> None:
    """The hub's folder of HuBERT Base says do_normalize, and its training did not."""
    reference, _ = pair("hubert", large=large)
    reference.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True}))
    assert load_encoder(tmp_path).config.normalize_waveform is large


def test_teachers_are_brought_into_our_format(tmp_path: Path) -> None:
    reference, encoder = pair("hubert", large=False)
    reference.save_pretrained(tmp_path / "hf")
    run_teacher("t", Teacher(source=str(tmp_path / "hf")), tmp_path / "t.safetensors")
    loaded = load_encoder(tmp_path / "t.safetensors")
    assert loaded.num_parameters() == encoder.num_parameters()
    job = Teacher(random=RandomEncoder(family="wavlm", seed=3))
    for name in ("a", "b"):
        run_teacher("r", job, tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    with pytest.raises(SkillError, match=r"teachers.t: .*nowhere does not exist"):
        run_teacher("t", Teacher(source="nowhere"), tmp_path / "x.safetensors")
    wrong = Teacher(source=str(tmp_path / "hf"), sha256="0" * 64)
    with pytest.raises(SkillError, match="has the SHA-256"):
        run_teacher("t", wrong, tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()
