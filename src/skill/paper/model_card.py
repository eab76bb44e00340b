"""The model card: what the header and the run's own tables say of a model, nothing typed."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from skill.encoder import SpeechEncoder
from skill.encoder.checkpoint import find_encoder, load_encoder, stored_header
from skill.encoder.formats.export import encoder_name
from skill.paper.sanity import violations
from skill.superb.metrics import METRICS
from skill.utils.errors import known_content
from skill.utils.files import checkout_path, read_csv, read_json

_REPRODUCED = "[SKILL](https://arxiv.org/abs/2402.16830)"
_USE = """```python
from transformers import AutoFeatureExtractor, AutoModel

folder = "{name}"  # where this card lies
extractor = AutoFeatureExtractor.from_pretrained(folder)
model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
inputs = extractor(waveform, sampling_rate=16000, return_tensors="pt")
states = model(**inputs, output_hidden_states=True).hidden_states
```

`waveform`: 16 kHz, mono, float32. `states`: {states} tensors, the first block's input and each
block's output, with {rate:g} frames of {width} numbers per second. `AutoModelForCTC` puts a head on
the last one for fine-tuning. Only `transformers` and `torch` are needed."""
_LIMITS = """The model gives representations, no decisions; a head has to be trained on them. It
hears what its training data taught it: other languages, channels and speaking styles are untested.
Voices can be told apart by its states, so treat stored states as personal data."""
Row = dict[str, str]


def text(student: str, scores: Path = Path("results/superb/scores.csv")) -> str:
    """The card of a student (a name, a file or a folder), the `README.md` of its exported folder.

    Args:
        scores: the table of all upstreams' results.

    Raises:
        SkillError: there is no such student, or a file cannot be read or says something else.
    """
    path = find_encoder(student)
    encoder, header = load_encoder(path), stored_header(path)
    with known_content(path, path.with_suffix(".json"), scores):
        return card(encoder, header, path, scores)


def card(encoder: SpeechEncoder, header: dict[str, Any], path: Path, scores: Path) -> str:
    """The card of the model in the file `path`, in Markdown.

    Args:
        path: the model's file; a student's summary lies beside it, with the same name.
        scores: the table of all upstreams' results.
    """
    name, config = encoder_name(path), encoder.config
    table = read_csv(scores) if scores.exists() else []
    pairs = scores.parent.parent / "paper/comparisons.csv"
    comparisons = read_csv(pairs) if pairs.exists() else []
    rows = [row for row in table if row["upstream"] == name]
    summary = path.with_suffix(".json")
    stage1 = read_json(summary) if summary.exists() else {}
    parts = [
        "---\nlibrary_name: transformers\npipeline_tag: feature-extraction\nlicense: other\n"
        "tags: [speech, feature-extraction, compression]\n---",
        f"# {name}",
        _what(rows, header, stage1),
        *(["## What it learned", _targets(stage1["targets"])] if stage1 else []),
        "## Size",
        _size(encoder, stage1, rows),
        "## Use",
        _USE.format(
            name=name,
            states=config.num_blocks + 1,
            rate=16000 / config.hop,
            width=config.width,
        ),
        "## Results",
        _results(rows, table),
        "## Training data",
        _data(header, bool(stage1)),
        "## Licence",
        "The code in this folder is Apache-2.0. The weights were made from the data named above, "
        "whose licences apply to them as far as the law has it so.",
        "## Limits",
        _LIMITS + _weak(name, table, comparisons),
    ]
    return "\n\n".join(parts) + "\n"


def _what(rows: Sequence[Row], header: dict[str, Any], stage1: dict[str, Any]) -> str:
    params = header.get("provenance", {}).get("params", {})
    if not stage1:
        return f"A speech encoder that is not compressed, of a reproduction of {_REPRODUCED}."
    removed = 1 - stage1["parameters"] / stage1["teacher_parameters"]
    method = f" by the method {_code(rows[0]['method'])}" if rows else ""
    seed = f" Seed {_plain(params['seed'])}." if "seed" in params else ""
    teachers = " and ".join(map(_plain, params.get("teachers", ["its teacher"])))
    return (
        f"A student of {teachers}{method}, "
        f"{removed:.0%} of whose parameters were removed. Made by an independent reproduction of "
        f"{_REPRODUCED}.{seed}"
    )


def _targets(targets: Sequence[dict[str, Any]]) -> str:
    """Each target's layers, a row for each."""
    lines = ["| the mean of these layers of the teacher | from these of the student | loss |"]
    lines.append("|---|---|---|")
    for target in targets:
        layers: dict[str, list[int]] = {}
        for teacher, layer in target["teacher"]:
            layers.setdefault(teacher, []).append(layer)
        named = "; ".join(f"{_plain(name)} {_list(taught)}" for name, taught in layers.items())
        lines.append(f"| {named} | {_list(target['student'])} | {target['loss']:.4g} |")
    return "\n".join(lines) + (
        "\n\nLayer 0 is the first block's input. Where the method groups layers, a row is a group "
        "of similar ones. Losses are those at the end of training."
    )


def _size(encoder: SpeechEncoder, stage1: dict[str, Any], rows: Sequence[Row]) -> str:
    config = encoder.config
    of_teacher = f" (teacher: {stage1['teacher_parameters']:,})" if stage1 else ""
    lines = [
        ("architecture", f"{config.family}, {config.num_blocks} blocks of width {config.width}"),
        ("parameters", f"{encoder.num_parameters():,}{of_teacher}"),
        ("attention heads per block", _list(len(heads) for heads in config.heads)),
        ("feed-forward units per block", _list(config.ffn)),
        ("convolution channels", _list(config.conv_channels)),
    ]
    if rows:
        macs, factor = float(rows[0]["macs"]), float(rows[0]["real_time_factor"])
        lines += [
            ("multiply-accumulates of 32 utterances, 1.5 to 35 s", f"{macs / 1e9:.1f} billion"),
            ("seconds of computing per second of audio, where it was made", f"{factor:.4f}"),
        ]
    return "| | |\n|---|---|\n" + "\n".join(f"| {title} | {text} |" for title, text in lines)


def _results(rows: Sequence[Row], table: Sequence[Row]) -> str:
    if not rows:
        return "None were measured in the run that exported this model."
    values = {(r["upstream"], r["task"], r["metric"]): f"{float(r['value']):.2f}" for r in table}
    beside = [name for name in rows[0]["teachers"].split("+") if name]
    beside += [r["upstream"] for r in table if r["kind"] == "fbank"][:1]
    head = ["task", "metric", "value", "95 % interval", *map(_plain, beside), "test items"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        metric = METRICS[row["metric"]]
        unit = f" in {metric.unit}" if metric.unit else ""
        cells = [
            _plain(row["task"].upper()) + (" (synthetic)" if row["synthetic"] == "True" else ""),
            f"{metric.title}{unit} ({'lower' if metric.low_is_good else 'higher'} is better)",
            "{:.2f}".format(float(row["value"])),
            "{:.2f} to {:.2f}".format(float(row["low"]), float(row["high"])),
            *(values.get((other, row["task"], row["metric"]), "") for other in beside),
            _plain(row["items"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    note = "The encoder was frozen, a head trained on its states for each task (SUPERB's protocol)."
    if "fbank" in beside:
        note += " `fbank`: log-mel features in its place."
    if not all(row["official"] == "True" for row in rows):
        note += " On sample data: not to be read beside published results."
    return "\n".join(lines) + "\n\n" + note


def _data(header: dict[str, Any], student: bool) -> str:
    inputs = header.get("provenance", {}).get("inputs", {})
    manifests = sorted(name for name in inputs if name.endswith(".csv"))
    if not manifests:
        return "The file's header does not say."
    listed = checkout_path("data/corpora.csv")
    known = read_csv(listed) if listed.exists() else []
    lines = ["| manifest | what it is | licence |", "|---|---|---|"]
    for manifest in manifests:
        rows = [row for row in known if row["kind"] == manifest.removesuffix(".csv")]
        what, licence = (_several(row[key] for row in rows) for key in ("name", "licence"))
        lines.append(f"| {_code(manifest)} | {what} | {licence} |")
    teacher = " The teacher learned from data of its own, named on its card." if student else ""
    return "\n".join(lines) + f"\n\nSpeech without its texts or labels.{teacher}"


def _weak(name: str, table: Sequence[Row], comparisons: Sequence[Row]) -> str:
    """Where the run's own table is not as it should be of a student."""
    rows = [r for r in table if r["kind"] != "student" or r["upstream"] == name]
    problems = violations(rows, comparisons)
    lines = "".join(f"\n* {_plain(line)}" for line in problems)
    return f"\n\nIn the results of its run, unlike what is hoped for:\n{lines}" if problems else ""


def _plain(text: object) -> str:
    """Text of others, so that Markdown and HTML show it as it is, on one line."""
    return re.sub(r"([\\`*_<>|\[\]#&~])", r"\\\1", _line(text))


def _code(text: object) -> str:
    """Text of others as code."""
    return f"`{_line(text).replace('`', '').replace('|', '')}`"


def _line(text: object) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in str(text))


def _several(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts)) or "not listed in data/corpora.csv"


def _list(counts: Iterable[int]) -> str:
    return " ".join(str(count) for count in counts)
