"""The keys of `params.yaml`, from the docstrings of their fields: a page and a schema for editors.

    python tools/reference.py

Writes docs/params.md and docs/params.schema.json; a test says when they are out of date.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, create_model

from skill.config import params, pretraining, training
from skill.config.methods import Distances, LayerTarget, Method
from skill.config.tasks import FIXED, PROTOCOL, Task
from skill.config.types import Section

DOCS = Path(__file__).parents[1] / "docs"
FIELDS = {k: v for k, v in Task.model_fields.items() if k not in FIXED}


class TaskSettings(Section):
    """A task of SUPERB; its keys replace the protocol's values (src/skill/config/tasks.py)."""


SECTIONS: dict[str, type[BaseModel]] = {
    "corpora.NAME": params.Corpus,
    "unlabelled": params.Unlabelled,
    "teachers.NAME": params.Teacher,
    "teachers.NAME.random": params.RandomEncoder,
    "pretraining.NAME": pretraining.Pretraining,
    "pretraining.NAME.start": pretraining.PretrainingStart,
    "pretraining.NAME.spectrum, .rounds": training.Training,
    "pretraining.NAME.rounds.targets": pretraining.PretrainingTarget,
    "activations": params.Activations,
    "similarity": params.Similarity,
    "clustering": params.Clustering,
    "studies": params.Studies,
    "stage1": training.Stage1,
    "stage2": training.Stage2,
    "methods.NAME": Method,
    "methods.NAME.targets": LayerTarget,
    "methods.NAME.distances": Distances,
    "students.NAME": params.StudentEntry,
    "superb.upstreams": params.Upstreams,
    "superb.tasks.NAME": Task,
    "paper": params.Paper,
}
HEAD = """\
# Keys of `params.yaml`

Made by `make docs` from the code. `skill check FILE` checks a file; unknown keys are errors.
Editors check and complete the file with `params.schema.json`, which the first line of `params.yaml`
names.
`seed` (a whole number) is the seed of everything that has none of its own.
"""


def page() -> str:
    """docs/params.md."""
    parts = [HEAD]
    for path, model in SECTIONS.items():
        about = " ".join((model.__doc__ or "").split())
        rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
        properties = model.model_json_schema()["properties"]
        definitions = model.model_json_schema().get("$defs", {})
        for name, field in model.model_fields.items():
            if model is Task and name in FIXED:
                continue
            default = "required" if field.is_required() else f"`{_short(field.get_default())}`"
            meaning = " ".join((field.description or "").split()).replace("|", "\\|")
            kind = _kind(properties[name], definitions)
            rows.append(f"| `{name}` | {kind} | {default} | {meaning} |")
        if model is Task:
            about += f" Tasks: {', '.join(PROTOCOL)}. Defaults differ from task to task."
        parts.append("\n".join([f"## `{path}`", "", about, "", *rows, ""]))
    return "\n".join(parts)


def _short(value: Any) -> str:
    if isinstance(value, BaseModel):
        value = value.model_dump()
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _kind(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """A field's type and range in words."""
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " or ".join(_kind(one, definitions) for one in schema["anyOf"])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}), definitions)}"
    if kind in ("integer", "number"):
        words = "whole number" if kind == "integer" else "number"
        signs = {"minimum": "≥", "exclusiveMinimum": ">", "exclusiveMaximum": "<"}
        return words + "".join(f" {sign} {schema[k]:g}" for k, sign in signs.items() if k in schema)
    names = {"string": "text", "boolean": "true or false", "object": "keys", "null": "none"}
    return names.get(kind, kind)


def schema() -> dict[str, Any]:
    """The JSON schema of a file as it is written: students before they are expanded."""
    fields: dict[str, Any] = {
        name: (field.annotation | None, None)  # type: ignore[operator]
        for name, field in FIELDS.items()
    }
    tasks = create_model("TaskSettings", __base__=TaskSettings, **fields)
    superb = create_model("Superb", __base__=params.Superb, tasks=(dict[str, tasks], ...))  # type: ignore[valid-type]
    entries = dict[params.Name, params.StudentEntry]
    written = create_model("Params", __base__=params.Params, students=(entries, ...), superb=superb)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | written.model_json_schema()


def files() -> dict[Path, str]:
    """What this program writes."""
    text = json.dumps(schema(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    return {DOCS / "params.md": page(), DOCS / "params.schema.json": text}


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
