"""The model card of an exported student says what its run measured."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from helpers.encoders import irregular, pair

from skill.encoder import checkpoint
from skill.encoder.formats import export
from skill.paper import model_card
from skill.utils.errors import SkillError
from skill.utils.files import write_csv, write_json


def test_the_card_says_what_the_run_says(stranger: Path, tmp_path: Path) -> None:
    """And its example runs where only `transformers` is installed."""
    _, encoder = pair("hubert", large=False)
    checkpoint.save_encoder(
        encoder,
        tmp_path / "small.safetensors",
        {"provenance": {"inputs": {"queen.csv": "1"}, "params": {"teachers": ["big"], "seed": 7}}},
    )
    targets = [
        {"teacher": [["big", 0]], "student": [0], "loss": -0.75},
        {"teacher": [["big", 1], ["big", 2]], "student": [1, 2], "loss": -0.5},
    ]
    summary = {"targets": targets, "parameters": 250, "teacher_parameters": 1000}
    write_json(tmp_path / "small.json", summary)
    row = {
        "upstream": "small", "kind": "student", "method": "skill", "teachers": "big",
        "task": "pr", "metric": "per", "value": "12.345", "low": "11", "high": "13",
        "items": "77", "low_is_good": "True", "synthetic": "False", "official": "False",
        "macs": "5e9", "real_time_factor": "0.01",
    }  # fmt: skip
    others = [
        row | {"upstream": "other"},
        row | {"upstream": "big", "kind": "teacher", "value": "10", "teachers": ""},
        row | {"upstream": "fbank", "kind": "fbank", "value": "12", "teachers": ""},
    ]
    write_csv(tmp_path / "scores.csv", [row, *others], list(row))
    text = model_card.text(str(tmp_path / "small.safetensors"), tmp_path / "scores.csv")
    export.run(str(tmp_path / "small.safetensors"), tmp_path / "small")
    assert "A student of big by the method `skill`, 75% of whose" in text and "Seed 7." in text
    assert "| big 0 | 0 | -0.75 |\n| big 1 2 | 1 2 | -0.5 |" in text
    result = "| PR | phone error rate in % (lower is better) | 12.35 | 11.00 to 13.00 "
    assert text.count(f"{result}| 10.00 | 12.00 | 77 |") == 1
    assert "| `queen.csv` | Flight of the Amazon Queen | freeware" in text
    assert f"{encoder.num_parameters():,} (teacher: 1,000)" in text and "5.0 billion" in text
    assert "not to be read beside published" in text
    assert "* PR per: small (12.35) does not beat fbank (12.00)" in text
    head, example = text.split("---")[1], text.split("```python")[1].split("```")[0]
    assert yaml.safe_load(head)["library_name"] == "transformers"
    waveform = "import numpy\nwaveform = numpy.zeros(16000, numpy.float32)\n"
    done = subprocess.run(
        [stranger, "-I", "-c", f"{waveform}{example}\nprint(len(states))"],
        env={"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1", "PATH": ""},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == encoder.config.num_blocks + 1


def test_the_card_of_a_model_that_no_run_knows(tmp_path: Path) -> None:
    checkpoint.save_encoder(irregular(), tmp_path / "alone.safetensors")
    text = model_card.text(str(tmp_path / "alone.safetensors"), tmp_path / "no.csv")
    assert "None were measured" in text and "header does not say" in text
    assert "What it learned" not in text


def test_texts_of_others_are_shown_as_they_are(tmp_path: Path) -> None:
    """And a header or summary that says something else is an error in a sentence."""
    path, summary = tmp_path / "small.safetensors", tmp_path / "small.json"
    bad = "<script>x</script>|[a](b)\n# `big`"
    params = {"teachers": [bad], "seed": bad}
    header = {"provenance": {"inputs": {f"{bad}.csv": "1"}, "params": params}}
    checkpoint.save_encoder(irregular(), path, header)
    targets = [{"teacher": [[bad, 0]], "student": [0], "loss": -0.75}]
    write_json(summary, {"targets": targets, "parameters": 1, "teacher_parameters": 4})
    text = model_card.text(str(path), tmp_path / "no.csv")
    shown = re.sub(r"`[^`]*`", "", text)
    assert "<script>" not in shown and "\n# \\`" not in text and r"\<script\>" in shown
    row = next(line for line in text.splitlines() if "csv`" in line)
    assert row.count("|") - row.count(r"\|") == 4
    for wrong in ({"targets": 3}, {}, {"targets": [{}], "parameters": 1}):
        write_json(summary, wrong | {"teacher_parameters": "many"})
        with pytest.raises(SkillError, match="not the content that is expected"):
            model_card.text(str(path), tmp_path / "no.csv")
