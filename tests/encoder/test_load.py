"""`skill.load` finds models by path and by name."""

from pathlib import Path

import pytest
import torch
from helpers.encoders import pair

import skill
from skill.encoder import checkpoint
from skill.utils.errors import SkillError


def test_by_path_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, encoder = pair("wavlm", large=False)
    encoder.train()
    checkpoint.save_encoder(encoder, tmp_path / "results/stage2/small-one.safetensors")
    monkeypatch.chdir(tmp_path)
    for name in ("small-one", "results/stage2/small-one.safetensors"):
        loaded = skill.load(name)
        assert not loaded.training
        assert torch.equal(
            loaded.state_dict()["encoder.layer_norm.weight"],
            encoder.state_dict()["encoder.layer_norm.weight"],
        )
    with pytest.raises(SkillError, match="nowhere: neither a file"):
        skill.load("nowhere")


def test_the_sample_teachers_come_with_the_repository() -> None:
    root = Path(__file__).parents[2]
    for name in ("wavlm-sample", "hubert-sample"):
        teacher = skill.load(root / f"data/teachers/{name}.safetensors")
        assert teacher.config.num_blocks == 12
        assert 3.9e6 < teacher.num_parameters() < 10e6  # "about 4 to 10 million"
        states, frames = teacher(torch.randn(1, 16000))
        assert len(states) == 13 and frames.tolist() == [49]
