"""The model card: what the header and the run's own tables say of a model, nothing typed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skill.encoder import SpeechEncoder
from skill.files import read_csv

_USE = """```python
from transformers import AutoFeatureExtractor, AutoModel

extractor = AutoFeatureExtractor.from_pretrained(FOLDER)
model = AutoModel.from_pretrained(FOLDER, trust_remote_code=True)
inputs = extractor(waveform, sampling_rate=16000, return_tensors="pt")
states = model(**inputs, output_hidden_states=True).hidden_states
```"""
_LIMITS = """The model gives representations, no decisions; a head has to be trained on them. It
hears what its training data taught it: other languages, channels and speaking styles are untested.
Voices can be told apart by its states, so treat stored states as personal data."""


def card(name: str, encoder: SpeechEncoder, header: dict[str, Any], scores: Path) -> str:
    """The card of the model `name` in Markdown; results are those of the table `scores`."""
    config = encoder.config
    rows = [r for r in read_csv(scores) if r["upstream"] == name] if scores.exists() else []
    parts = [
        "---",
        "library_name: transformers",
        "license: other",
        "tags: [speech, feature-extraction, compression]",
        "---",
        f"# {name}",
        _what(rows),
        "## Size",
        "| | |\n|---|---|\n"
        f"| architecture | {config.family}, {config.num_blocks} blocks of width {config.width} |\n"
        f"| parameters | {encoder.num_parameters():,} |\n"
        f"| attention heads per block | {_list(len(h) for h in config.heads)} |\n"
        f"| feed-forward units per block | {_list(config.ffn)} |\n"
        f"| convolution channels | {_list(config.conv_channels)} |",
        "## Use",
        _USE,
        "## Results",
        _results(rows),
        "## Training data",
        _data(header),
        "## Licence",
        "The code in this folder is Apache-2.0. The weights were made from the data named above, "
        "whose licences apply to them as far as the law has it so.",
        "## Limits",
        _LIMITS,
    ]
    return "\n\n".join(parts) + "\n"


def _what(rows: Sequence[dict[str, str]]) -> str:
    if not rows:
        return "A speech encoder made by [SKILL](https://arxiv.org/abs/2402.16830)'s reproduction."
    row = rows[0]
    if row["kind"] != "student":
        return "An uncompressed speech encoder, teacher of the students made from it."
    text = f"A student of {row['teachers']} by the method `{row['method']}`"
    if row["sparsity"]:
        text += f", {float(row['sparsity']):.0%} of whose parameters were removed"
    return text + "."


def _results(rows: Sequence[dict[str, str]]) -> str:
    if not rows:
        return "None were measured in the run that exported this model."
    lines = ["| task | metric | value | 95 % interval | test items |", "|---|---|---|---|---|"]
    for row in rows:
        better = "lower is better" if row["low_is_good"] == "True" else "higher is better"
        task = row["task"].upper() + (" (synthetic)" if row["synthetic"] == "True" else "")
        value, low, high = (f"{float(row[key]):.2f}" for key in ("value", "low", "high"))
        lines.append(
            f"| {task} | {row['metric']} {row['unit']} ({better}) | {value} | {low} to {high} "
            f"| {row['items']} |"
        )
    official = all(row["official"] == "True" for row in rows)
    note = "" if official else "\n\nOn sample data: not to be read beside published results."
    return "\n".join(lines) + note


def _data(header: dict[str, Any]) -> str:
    inputs = header.get("provenance", {}).get("inputs", {})
    manifests = sorted(name for name in inputs if name.endswith(".csv"))
    if not manifests:
        return "The file's header does not say."
    return "Speech listed in the manifests " + ", ".join(f"`{name}`" for name in manifests) + "."


def _list(counts: Any) -> str:
    return " ".join(str(count) for count in counts)
