"""Tables: averages by hand, parameters as the encoder counts them, pictures twice alike."""

from pathlib import Path
from typing import Any

import pytest
import torch

from skill.encoder import EncoderConfig, SpeechEncoder
from skill.errors import SkillError
from skill.figures import draw
from skill.files import read_csv, write_csv, write_json, write_tensors
from skill.paper import curves, layers, markdown, results, run
from skill.params import PaperJob, Upstream

JOB = PaperJob(upstreams={"a": Upstream(kind="student")}, bootstrap=10)


def score(upstream: str, base: str, value: float, **other: Any) -> dict[str, str]:
    row = {
        "upstream": upstream, "base": base, "kind": "student", "method": "skill", "teachers": "t",
        "sparsity": "0.75", "parameters": "1000000", "task": "pr", "metric": "per",
        "value": value, "low": value - 1, "high": value + 2, "items": 7, "unit": "%",
        "low_is_good": "True", "synthetic": "False",
    }  # fmt: skip
    return {key: str(item) for key, item in (row | other).items()}


def test_seeds_are_averaged() -> None:
    scores = [score("a-seed1", "a", 10.0), score("a-seed2", "a", 14.0)]
    scores.append(score("fbank", "fbank", 50.0, kind="fbank", parameters=0))
    row, floor = results(scores)
    assert (row["upstream"], row["seeds"], row["value"]) == ("a", 2, 12.0)
    assert row["deviation"] == pytest.approx(8**0.5)
    assert (row["low"], row["high"]) == (11.0, 14.0)
    assert floor["deviation"] == ""
    text = markdown([row, floor])
    assert "| a | 1.00 M | 12.00 ± 2.83 [11.00, 14.00] |" in text
    assert "| fbank | 0.00 M | 50.00 [49.00, 52.00] |" in text
    assert "PR per % ↓, n = 7" in text


def test_synthetic_results_are_marked() -> None:
    assert "PR (synthetic)" in markdown(results([score("a", "a", 1.0, synthetic="True")]))


def test_updates_go_on_through_both_stages(tmp_path: Path) -> None:
    files = []
    for stage, steps in (("stage1", (10, 20)), ("stage2", (5,))):
        file = tmp_path / stage / "a.csv"
        write_csv(file, [{"step": s, "distillation": 0.5} for s in steps], ["step", "distillation"])
        files.append(file)
    assert [row["update"] for row in curves(files)] == [10, 20, 25]


def test_parameters_of_a_block_are_the_encoders(tmp_path: Path) -> None:
    config = EncoderConfig.uniform("hubert", width=16, blocks=2, heads=4, ffn=24, conv=8)
    encoder = SpeechEncoder(config)
    write_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(1)}, {"config": config.to_dict()})
    full = {"heads": [4, 4], "ffn": [24, 24], "conv_channels": [8] * 7}
    write_json(tmp_path / "a.json", {"teacher": full})
    rows = layers([tmp_path / "a.json", tmp_path / "a.safetensors"])
    block = encoder.encoder.layers[1]
    for unit, module in (("head", block.attention), ("ffn", block.feed_forward)):
        row = next(r for r in rows if r["unit"] == unit and r["layer"] == 2)
        assert row["parameters"] == sum(p.numel() for p in module.parameters())
    conv = next(r for r in rows if r["unit"] == "conv" and r["layer"] == 2)
    weight = encoder.feature_extractor.conv_layers[1].conv.weight
    assert conv["parameters"] == weight.numel()


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SkillError, match="no such table"):
        run("poem", JOB, [], tmp_path / "poem.csv")
    with pytest.raises(SkillError, match="no such figure"):
        draw("poem", tmp_path / "a.csv", tmp_path / "a.pdf", tmp_path / "a.png")


def test_pictures_are_the_same_twice(tmp_path: Path) -> None:
    scores = tmp_path / "scores.csv"
    rows = [score("a", "a", 10.0), score("b", "b", 20.0)]
    write_csv(scores, rows, list(rows[0]))
    run("size", JOB, [scores], tmp_path / "size.csv")
    assert len(read_csv(tmp_path / "size.csv")) == 2
    for folder in ("one", "two"):
        place = tmp_path / folder
        draw("size", tmp_path / "size.csv", place / "size.pdf", place / "size.png")
    for name in ("size.pdf", "size.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
