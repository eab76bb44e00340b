"""What fine-tuning asks of an exported folder: precision, memory, and a second save and load."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.encoders import error, irregular
from transformers import AutoModel, AutoModelForCTC

from skill.encoder import checkpoint
from skill.encoder.formats import export

TUNE = """
import sys
import torch
from transformers import AutoModelForCTC
folder, tuned = sys.argv[1:]
torch.manual_seed(0)
model = AutoModelForCTC.from_pretrained(folder, trust_remote_code=True, vocab_size=6)
model.freeze_feature_encoder()
model.gradient_checkpointing_enable()
model.train()
waves = torch.randn(2, 9000)
mask = (torch.arange(9000) < torch.tensor([[9000], [6000]])).long()
labels = torch.tensor([[1, 2, 3], [4, -100, -100]])
optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 3e-3)
losses = []
for _ in range(15):
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(waves, attention_mask=mask, labels=labels).loss
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < 0.6 * losses[0], losses
assert all(p.grad is None for p in model.speech.feature_extractor.parameters())
model.eval().save_pretrained(tuned)
with torch.no_grad():
    torch.save([waves, model(waves, attention_mask=mask).logits], tuned + "/answer.pt")
"""
AGAIN = """
import json, sys, torch
from transformers import AutoModelForCTC
folder, = sys.argv[1:]
model = AutoModelForCTC.from_pretrained(folder, trust_remote_code=True).eval()
waves, logits = torch.load(folder + "/answer.pt", weights_only=True)
mask = (torch.arange(9000) < torch.tensor([[9000], [6000]])).long()
with torch.no_grad():
    difference = (model(waves, attention_mask=mask).logits - logits).abs().max().item()
print(json.dumps(difference))
"""
REGISTERED = """
import sys
import skill.encoder.formats.export
skill.encoder.formats.export.register()
from transformers import AutoModel, AutoModelForCTC
print(type(AutoModel.from_pretrained(sys.argv[1])).__module__)
print(type(AutoModelForCTC.from_pretrained(sys.argv[1], vocab_size=5)).__module__)
"""


def python(
    code: str, home: Path, *arguments: Path, program: str = sys.executable, **environment: str
) -> str:
    """What a program prints that sees nothing of this one's settings."""
    done = subprocess.run(
        [program, "-c", code, *map(str, arguments)],
        env={"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    checkpoint.save_encoder(irregular(), tmp_path / "small.safetensors")
    export.run(str(tmp_path / "small.safetensors"), tmp_path / "a folder")
    return tmp_path / "a folder"


def test_a_stranger_fine_tunes_saves_and_loads_again(
    stranger: Path, folder: Path, tmp_path: Path
) -> None:
    """With `transformers` only, in three processes: export, training with checkpointing, use."""
    home, tuned = tmp_path / "cache", tmp_path / "tuned"
    python(TUNE, home, folder, tuned, program=str(stranger))
    assert (tuned / "modeling_skill.py").exists()
    assert json.loads(python(AGAIN, home, tuned, program=str(stranger))) < 1e-5


def test_registered_classes_need_no_code_in_the_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "modeling_skill.py").unlink()
    source = str(Path(export.__file__).parents[2])
    printed = python(REGISTERED, tmp_path / "cache", folder, PYTHONPATH=source)
    assert printed.split() == ["skill.encoder.formats.modeling_skill"] * 2


def inputs() -> dict[str, Any]:
    waves = torch.randn(2, 9000, generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(9000) < torch.tensor([[9000], [6000]])).long()
    return {"input_values": waves, "attention_mask": mask}


@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)], ids=["bfloat16", "float16"]
)
@torch.no_grad()
def test_states_in_half_precision(folder: Path, dtype: torch.dtype, limit: float) -> None:
    export.register()
    whole, half = (
        AutoModel.from_pretrained(folder, dtype=d).eval()(**inputs(), output_hidden_states=True)
        for d in (torch.float32, dtype)
    )
    for own, want in zip(half.hidden_states, whole.hidden_states, strict=True):
        assert own.dtype == dtype
        assert 0 < error(own[0].float(), want[0]) < limit


def test_weights_in_bfloat16_get_gradients(folder: Path) -> None:
    """The same with and without checkpointing."""
    export.register()
    model = AutoModelForCTC.from_pretrained(folder, vocab_size=6, dtype=torch.bfloat16).train()
    found = []
    for checkpointed in (False, True):
        if checkpointed:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        torch.manual_seed(1)
        model(**inputs(), labels=torch.tensor([[1, 2], [3, -100]])).loss.backward()
        found.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        assert all(torch.isfinite(g).all() for g in found[-1].values())
        assert all(g.dtype == torch.bfloat16 for g in found[-1].values())
    assert found[0].keys() == found[1].keys() and found[0]["lm_head.weight"].abs().max() > 0
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)


def waves_and_mask() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    mask = (torch.arange(6000) < torch.tensor([[6000], [4500]])).long()
    return torch.randn(2, 6000, generator=generator) * mask, mask


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForCTC])
def test_dtypes_and_modes_do_what_they_do_for_classes_of_transformers(
    tmp_path: Path, auto: Any
) -> None:
    """Outputs have the weights' precision, whatever the input's; modes do not change a value."""
    export.register()
    checkpoint.save_encoder(irregular(), tmp_path / "small.safetensors")
    export.run(str(tmp_path / "small.safetensors"), tmp_path / "out")
    waves, mask = waves_and_mask()
    model = auto.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        expected = model(waves, attention_mask=mask)[0]
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        half = auto.from_pretrained(tmp_path / "out", dtype=dtype).eval()
        converted = auto.from_pretrained(tmp_path / "out").to(dtype).eval()
        if auto is AutoModelForCTC:  # whose head is drawn anew
            half.lm_head.load_state_dict(model.lm_head.state_dict())
            converted.lm_head.load_state_dict(model.lm_head.state_dict())
        for one in (half, converted):
            for given in (waves, waves.to(dtype)):
                with torch.inference_mode():
                    output = one(given, attention_mask=mask, output_hidden_states=True)
                assert output[0].dtype == dtype == output.hidden_states[0].dtype
                assert error(output[0].float(), expected) < 0.03
        one.train()
        one(waves, attention_mask=mask)[0].float().square().mean().backward()
        gradients = [p.grad for p in one.parameters() if p.grad is not None]
        assert gradients and all(g.dtype == dtype and g.isfinite().all() for g in gradients)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.inference_mode(), torch.autocast("cpu", dtype):
            assert error(model(waves, attention_mask=mask)[0].float(), expected) < 0.01
    # It is what the encoder computes with, though not under that name.
    asked = auto.from_pretrained(tmp_path / "out", attn_implementation="sdpa").eval()
    torch.testing.assert_close(asked.speech(waves)[0], model.speech(waves)[0], rtol=0, atol=0)
    compiled = torch.compile(model, backend="aot_eager")
    with torch.no_grad():
        for batch in (slice(0, 2), slice(0, 1)):
            output = compiled(waves[batch], attention_mask=mask[batch])[0]
            want = model(waves[batch], attention_mask=mask[batch])[0]
            torch.testing.assert_close(output, want, atol=1e-5, rtol=1e-5)
        as_tuple = model(waves, attention_mask=mask, return_dict=False)
        model.config.output_hidden_states, model.config.return_dict = True, False
        as_configured = model(waves, attention_mask=mask)
    assert isinstance(as_tuple, tuple) and torch.equal(as_tuple[0], expected)
    assert isinstance(as_configured, tuple) and len(as_configured[1]) == 4
