"""DPHuBERT's files are read, and what is written for its code comes back the same."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.encoders import error, gated, pair, utterances
from torch import Tensor

from skill.distillation.gates import UNITS
from skill.distillation.pruning import prune
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.encoder.checkpoint import load_encoder
from skill.encoder.formats.dphubert import read_dphubert, write_dphubert
from skill.utils.errors import SkillError


def dphubert(encoder: SpeechEncoder) -> dict[str, Any]:
    """A checkpoint as DPHuBERT writes it: gone sublayers have no tensors, weight norm is old."""
    config = encoder.config
    written: dict[str, Any] = {
        "extractor_mode": "group_norm",
        "extractor_conv_layer_config": list(
            zip(config.conv_channels, config.conv_kernels, config.conv_strides, strict=True)
        ),
        "extractor_conv_bias": False,
        "encoder_embed_dim": config.width,
        "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": config.pos_conv_kernel,
        "encoder_pos_conv_groups": config.pos_conv_groups,
        "encoder_num_layers": config.num_blocks,
        "encoder_use_attention": [bool(heads) for heads in config.heads],
        "encoder_use_feed_forward": [bool(units) for units in config.ffn],
        "encoder_attention_dropout": 0.1,
        "encoder_ff_interm_features": list(config.ffn),
        "encoder_ff_interm_dropout": 0.0,
        "encoder_dropout": 0.1,
        "encoder_layer_norm_first": False,
        "normalize_waveform": False,
    }
    if config.family == "wavlm":
        written |= {
            "encoder_total_num_heads": [config.total_heads] * config.num_blocks,
            "encoder_remaining_heads": [list(heads) for heads in config.heads],
            "encoder_num_buckets": config.relative_buckets,
            "encoder_max_distance": config.relative_distance,
        }
    else:
        written |= {
            "encoder_num_heads": [len(heads) for heads in config.heads],
            "encoder_head_dim": config.head_width,
        }
    state: dict[str, Tensor] = {
        "feature_extractor.dummy_weight": encoder.state_dict()["feature_projection.scale"]
    }
    for name, value in encoder.state_dict().items():
        block = re.match(r"encoder\.layers\.(\d+)\.(attention|feed_forward)\.", name)
        if name.startswith("feature_projection."):
            if "removed" not in name and "scale" not in name:
                state[f"encoder.{name}"] = value
            continue
        if block and not (config.heads if block[2] == "attention" else config.ffn)[int(block[1])]:
            continue
        if name.endswith("gru_rel_pos_const"):
            full = torch.full((1, config.total_heads, 1, 1), 7.0)
            full[:, list(config.heads[int(block[1])])] = value  # type: ignore[index]
            value = full
        name = name.replace("parametrizations.weight.original0", "weight_g")
        name = name.replace("parametrizations.weight.original1", "weight_v")
        name = re.sub(r"^encoder\.", "encoder.transformer.", name)
        state[name] = value
    return {"config": written, "state_dict": state, "distill_linear_projs": {}}


@pytest.mark.parametrize("family", ["wavlm", "hubert"])
def test_a_dphubert_student_is_read(tmp_path: Path, family: str) -> None:
    """What this project has beyond DPHuBERT (the norm's full width, biases of gone sublayers) is
    taken out of a pruned encoder first; the rest has to come back."""
    student = prune(gated(family, ("conv", "head", "ffn")))
    config = EncoderConfig.from_dict(
        student.config.to_dict()
        | {
            "conv_full_width": student.config.conv_channels[-1],
            "heads": (student.config.heads[0] or (1,), (), *student.config.heads[2:]),
            "ffn": (*student.config.ffn[:2], 0),
        }
    )
    torch.manual_seed(2)
    expected = SpeechEncoder(config).eval()
    with torch.no_grad():
        for parameter in expected.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        expected.feature_projection.removed.zero_()
        expected.blocks[1].attention.out_proj.bias.zero_()
        expected.blocks[2].feed_forward.output_dense.bias.zero_()
    torch.save(dphubert(expected), tmp_path / "pruned.pth")
    found = load_encoder(tmp_path / "pruned.pth")
    assert [len(heads) for heads in found.config.heads] == [len(h) for h in config.heads]
    waveforms, lengths = utterances([8000, 5000], torch.float32)
    with torch.no_grad():
        for own, want in zip(
            found(waveforms, lengths)[0], expected(waveforms, lengths)[0], strict=True
        ):
            assert error(own, want) < 1e-5


def test_what_is_no_dphubert_checkpoint_says_so(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "a.pth")
    with pytest.raises(SkillError, match=r"a.pth: no DPHuBERT checkpoint: 'config'"):
        read_dphubert(tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(b"noise")
    with pytest.raises(SkillError, match=r"b.pth: weights that cannot be read"):
        read_dphubert(tmp_path / "b.pth")


def without_heads() -> SpeechEncoder:
    """No head in the first block, which has WavLM's table; sublayers that are only a bias."""
    encoder = SpeechEncoder(
        EncoderConfig.from_dict(
            prune(gated("wavlm", ("conv", "head", "ffn"))).config.to_dict()
            | {"heads": ((), (), (1, 3)), "ffn": (12, 0, 0)}
        )
    ).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        encoder.blocks[1].attention.out_proj.bias.zero_()
        encoder.blocks[2].feed_forward.output_dense.bias.zero_()
    return encoder


WRITTEN = {
    **{f: lambda f=f: pair(f, large=False)[1] for f in ("wavlm", "hubert", "wav2vec2")},
    **{f"{f} large": lambda f=f: pair(f, large=True)[1] for f in ("wavlm", "hubert")},
    **{f"{f} pruned": lambda f=f: prune(gated(f, UNITS)) for f in ("wavlm", "hubert")},
    "filter bank pruned": lambda: prune(gated("wavlm", UNITS, filters=True)),
    "large pruned": lambda: prune(gated("hubert", ("head", "ffn"), large=True)),
    "without heads": without_heads,
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_for_dphubert_comes_back(tmp_path: Path, name: str) -> None:
    encoder = WRITTEN[name]()
    write_dphubert(encoder, tmp_path / "a folder/student.pth")
    found = read_dphubert(tmp_path / "a folder/student.pth")
    waveforms, lengths = utterances([8000, 5000], torch.float32)
    with torch.no_grad():
        states, frames = encoder(waveforms, lengths)
        for own, want in zip(found(waveforms, lengths)[0], states, strict=True):
            for row, count in enumerate(frames.tolist()):
                assert error(own[row, :count], want[row, :count]) < 1e-5


def test_only_what_dphubert_has_is_in_the_file(tmp_path: Path) -> None:
    """Gone sublayers have no tensors, nothing is named as in this project, all keys are there."""
    write_dphubert(without_heads(), tmp_path / "student.pth")
    written = torch.load(tmp_path / "student.pth", weights_only=True)
    config, state = written["config"], written["state_dict"]
    assert config["encoder_use_attention"] == [True, False, True]
    assert config["encoder_remaining_heads"] == [[0], [], [1, 3]]
    assert config["encoder_ff_interm_features"] == [12, 1, 0]
    assert config["extractor_conv_layer_config"][-1] == (24, 2, 2)
    assert not any("layers.1.attention" in key or "layers.2.feed_forward" in key for key in state)
    assert not any(re.search("scale|removed|parametrizations", key) for key in state)
    position = "encoder.transformer.pos_conv_embed.conv.weight_"
    assert position + "g" in state and position + "v" in state
    assert state["encoder.transformer.layers.2.attention.gru_rel_pos_const"].shape == (1, 4, 1, 1)


def test_what_dphubert_cannot_say_is_refused(tmp_path: Path) -> None:
    config = pair("hubert", large=False)[1].config
    for change, message in (
        ({"projection_norm": False}, "this encoder none"),
        ({"layer_norm_eps": 1e-6}, "not 1e-06"),
    ):
        with pytest.raises(SkillError, match=message):
            write_dphubert(SpeechEncoder(replace(config, **change)), tmp_path / "no.pth")
    with pytest.raises(SkillError, match="prune it first"):
        write_dphubert(gated("hubert", ("ffn",)), tmp_path / "no.pth")
    assert not list(tmp_path.iterdir())
