"""An exported folder loads where this package is not, and computes the same."""

import ast
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.encoders import irregular
from transformers import AutoConfig, AutoModel, AutoModelForCTC

import skill
from skill.encoder import SpeechEncoder, checkpoint
from skill.encoder.formats import export
from skill.utils.errors import SkillError

STRANGER = """
import importlib.util, sys
assert all(importlib.util.find_spec(n) is None for n in ("skill", "torchaudio", "snakemake"))
import torch
from transformers import AutoFeatureExtractor, AutoModel
folder, answer = sys.argv[1:]
extractor = AutoFeatureExtractor.from_pretrained(folder)
model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
waves = torch.load(answer, weights_only=True)["waves"]
inputs = extractor([w.numpy() for w in waves], sampling_rate=16000, padding=True,
                   return_tensors="pt")
with torch.no_grad():
    states = model(**inputs, output_hidden_states=True).hidden_states
torch.save({"states": list(states)}, answer)
"""


@pytest.fixture
def exported(tmp_path: Path) -> tuple[SpeechEncoder, Path]:
    encoder = irregular()
    checkpoint.save_encoder(encoder, tmp_path / "small.safetensors", {"student": "small"})
    folder = tmp_path / "a folder"
    export.run(str(tmp_path / "small.safetensors"), folder)
    return encoder, folder


@pytest.mark.parametrize(("family", "normalize"), [("wavlm", False), ("hubert", True)])
def test_a_stranger_gets_the_same_states(
    stranger: Path, tmp_path: Path, family: str, normalize: bool
) -> None:
    """In an environment with `transformers` and `torch` only."""
    encoder = irregular(family, normalize)
    checkpoint.save_encoder(encoder, tmp_path / "small.safetensors")
    export.run(str(tmp_path / "small.safetensors"), tmp_path / "out")
    waves = [torch.randn(9000), torch.randn(6000)]
    padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    with torch.no_grad():
        expected, frames = encoder(padded, torch.tensor([9000, 6000]))
    answer = tmp_path / "answer.pt"
    torch.save({"waves": waves}, answer)
    command = [stranger, "-I", "-c", STRANGER, str(tmp_path / "out"), str(answer)]
    environment = {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1", "PATH": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    states = torch.load(answer, weights_only=True)["states"]
    assert len(states) == len(expected) == 4
    for ours, theirs in zip(expected, states, strict=True):
        for row, count in enumerate(frames.tolist()):
            torch.testing.assert_close(theirs[row, :count], ours[row, :count], atol=1e-5, rtol=0)


def test_the_folder_has_copies_of_what_the_network_needs(
    exported: tuple[SpeechEncoder, Path],
) -> None:
    package = Path(export.__file__).parents[1]
    for name in export.CARRIED:
        assert (exported[1] / f"{name}.py").read_bytes() == (package / f"{name}.py").read_bytes()
    modules = {path.stem for path in package.glob("*.py")}
    assert modules == {"__init__", "checkpoint", "inference", *export.CARRIED}


def test_exported_code_calls_public_operators_only(exported: tuple[SpeechEncoder, Path]) -> None:
    """Nothing of torch's internals, which other versions and machines may lack."""
    for file in exported[1].glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Attribute):
                continue
            path = ast.unparse(node).split(".")
            if path[0] in ("torch", "F", "nn"):
                assert not any(part.startswith("_") for part in path), ast.unparse(node)
                assert not {"ops", "_C", "mkldnn_convolution"} & set(path), ast.unparse(node)


def test_the_folder_is_an_encoder_of_this_project_too(
    exported: tuple[SpeechEncoder, Path],
) -> None:
    encoder, folder = exported
    again = skill.load(folder)
    assert again.config == encoder.config
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_registered_models_need_no_foreign_code(exported: tuple[SpeechEncoder, Path]) -> None:
    export.register()
    encoder, folder = exported
    model = AutoModel.from_pretrained(folder)
    assert type(model).__module__ == "skill.encoder.formats.modeling_skill"
    assert AutoConfig.from_pretrained(folder).num_hidden_layers == 3
    waves = torch.randn(2, 5000)
    with torch.no_grad():
        torch.testing.assert_close(model(waves).last_hidden_state, encoder(waves)[0][-1])
        half = AutoModel.from_pretrained(folder, dtype=torch.bfloat16)
        assert half(waves).last_hidden_state.dtype == torch.bfloat16


def test_a_head_is_trained_with_and_without_checkpointing(
    exported: tuple[SpeechEncoder, Path], tmp_path: Path
) -> None:
    export.register()
    model = AutoModelForCTC.from_pretrained(exported[1], vocab_size=6)
    assert torch.equal(
        model.speech.feature_projection.projection.weight,
        exported[0].feature_projection.projection.weight,
    )
    waves, labels = torch.randn(2, 9000), torch.tensor([[1, 2, 3], [4, -100, -100]])
    mask = torch.ones(2, 9000, dtype=torch.long)
    mask[1, 6000:] = 0
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            model.gradient_checkpointing_enable()
            assert model.is_gradient_checkpointing
        model.train()
        torch.manual_seed(1)
        model.zero_grad()
        model(waves, attention_mask=mask, labels=labels).loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for plain, saved in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, saved)
    model.gradient_checkpointing_disable()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = model(waves, attention_mask=mask, labels=labels).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    model.eval().save_pretrained(tmp_path / "tuned")
    again = AutoModelForCTC.from_pretrained(tmp_path / "tuned").eval()
    with torch.no_grad():
        torch.testing.assert_close(again(waves).logits, model(waves).logits)


def test_the_verb_exports_and_refuses(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from skill.cli import main

    checkpoint.save_encoder(irregular(), tmp_path / "small.safetensors")
    assert main(["export", str(tmp_path / "small.safetensors"), str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/modeling_skill.py").exists()
    assert main(["export", "nobody", str(tmp_path / "no")]) == 1
    assert "error: nobody: neither a file or folder, nor a model" in capfd.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_folder_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save_encoder(irregular(), tmp_path / "small.safetensors")
    (tmp_path / "old").mkdir()
    (tmp_path / "old/notes.txt").write_text("mine")

    def fail(*_: object) -> None:
        raise SkillError("the disk is full")

    copied = export._copy_modules
    for folder in (tmp_path / "new", tmp_path / "old"):
        monkeypatch.setattr(export, "_copy_modules", fail)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SkillError, match="disk is full"):
            export.run(str(tmp_path / "small.safetensors"), folder)
        assert sorted(tmp_path.rglob("*")) == before
        monkeypatch.setattr(export, "_copy_modules", copied)
        export.run(str(tmp_path / "small.safetensors"), folder)
        assert (folder / "config.json").exists() and not list(folder.glob(".*"))
    assert (tmp_path / "old/notes.txt").read_text() == "mine"
    with pytest.raises(SkillError, match=r"small\.safetensors: cannot be written: it is a file"):
        export.run(str(tmp_path / "small.safetensors"), tmp_path / "small.safetensors")


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForCTC])
def test_what_transformers_saved_again_is_an_encoder_of_this_project(
    tmp_path: Path, auto: Any
) -> None:
    """And can be exported once more."""
    export.register()
    encoder = irregular("hubert", normalize=True)
    checkpoint.save_encoder(encoder, tmp_path / "small.safetensors")
    export.run(str(tmp_path / "small.safetensors"), tmp_path / "first")
    auto.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    waves = torch.randn(1, 6000)
    with torch.no_grad():
        expected = encoder(waves)[0]
    export.run(str(tmp_path / "second"), tmp_path / "third")
    export.run(str(tmp_path / "second"), tmp_path / "third", ["s3prl", "dphubert"])
    assert (tmp_path / "third/second.pth").exists()
    for folder in ("second", "third"):
        again = skill.load(tmp_path / folder)
        assert again.config == encoder.config
        with torch.no_grad():
            for state, want in zip(again(waves)[0], expected, strict=True):
                assert torch.equal(state, want)


@pytest.mark.parametrize("head", [False, True])
def test_inputs_outside_the_domain_are_refused(
    exported: tuple[SpeechEncoder, Path], head: bool
) -> None:
    export.register()
    auto = AutoModelForCTC if head else AutoModel
    model = auto.from_pretrained(exported[1]).eval()
    waves = torch.randn(2, 5000)
    waves[1, 4000:] = 0
    good = (torch.arange(5000) < torch.tensor([[5000], [4000]])).long()
    assert torch.isfinite(model(waves, attention_mask=good)[0]).all()
    for mask, message in (
        (good[:, :4000], "the shape"),
        (good.flip(1), "padding has to stand at the end"),
        (good * (torch.arange(5000) < 300), "300 samples is shorter than one frame"),
    ):
        with pytest.raises(ValueError, match=message):
            model(waves, attention_mask=mask)
    with pytest.raises(ValueError, match=r"int16: speech is floats"):
        model((1000 * waves).short())
    waves[0, 3] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        model(waves)
