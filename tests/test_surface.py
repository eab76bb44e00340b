"""What users and their scripts rely on: commands, keys, public names, artefacts.

A change is made on purpose: `python tests/test_surface.py` writes tests/surface.txt anew, and
CHANGELOG.md says what is called differently.
"""

import importlib.util
import re
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import grimp
import pytest
import typer

import skill
from skill.cli import app
from skill.config.load import read_yaml

ROOT = Path(__file__).parents[1]
FROZEN = Path(__file__).with_name("surface.txt")


def reference() -> ModuleType:
    """tools/reference.py."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tools/reference.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def surface() -> str:
    lines = ["# commands"]
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        words = [p.name if p.param_type_name == "argument" else p.opts[0] for p in command.params]
        lines.append(" ".join([name, *words]))
    lines.append("# keys of params.yaml")
    for path, model in reference().SECTIONS.items():
        lines.append(f"{path}: {' '.join(model.model_fields)}")
    lines += [
        "# public names",
        " ".join(
            sorted(
                n
                for n in vars(skill)
                if not n.startswith("_") and n.islower() and callable(getattr(skill, n))
            )
        ),
    ]
    lines.append("# artefacts")
    outputs = re.compile(r"results/[\w{}/.-]+\.\w+")
    rules = "".join(p.read_text() for p in sorted((ROOT / "workflow/rules").glob("*.smk")))
    blocks = re.findall(r"^ +output:\n((?: {8,}.*\n)+)", rules, re.M)
    lines += sorted({name for block in blocks for name in outputs.findall(block)})
    return "\n".join(lines) + "\n"


def test_nothing_that_users_rely_on_has_changed() -> None:
    assert surface() == FROZEN.read_text()


def test_reference_of_the_keys_is_current() -> None:
    module = reference()
    for path, text in module.files().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `make docs`"
    for path, model in module.SECTIONS.items():
        for name, field in model.model_fields.items():
            assert field.description or name in module.FIXED, f"{path}.{name} has no docstring"


@pytest.mark.parametrize(
    "path", [ROOT / "params.yaml", *sorted((ROOT / "presets").glob("*.yaml"))], ids=lambda p: p.stem
)
def test_schema_knows_all_keys_of_the_presets(path: Path) -> None:
    schema = reference().schema()

    def check(value: Any, part: Any, where: str) -> None:
        if "$ref" in part:
            part = schema["$defs"][part["$ref"].rpartition("/")[2]]
        properties, others = part.get("properties", {}), part.get("additionalProperties")
        if isinstance(value, dict) and (properties or others):
            for key, inner in value.items():
                deeper = properties.get(key, others)
                assert deeper, where + key
                check(inner, deeper if isinstance(deeper, dict) else {}, f"{where}{key}.")

    check(read_yaml(path), schema, "")


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("skill")
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    TopologicalSorter(imports).prepare()  # CycleError names the circle


def imported(*folders: str) -> set[str]:
    """Top-level modules that the Python files in some folders import."""
    words = re.compile(r"^\s*(?:from|import) ([a-zA-Z]\w*)", re.M)
    files = [p for folder in folders for p in (ROOT / folder).rglob("*.py")]
    return {name for path in files for name in words.findall(path.read_text(encoding="utf-8"))}


def distributions(modules: set[str]) -> set[str]:
    known = metadata.packages_distributions()
    found = {d for m in modules - set(sys.stdlib_module_names) for d in known.get(m, [])}
    return {name.lower().replace("_", "-").replace(".", "-") for name in found}


def declared(lines: list[str]) -> set[str]:
    names = {re.split(r"[\[<>=~ ]", line)[0].lower().replace(".", "-") for line in lines}
    return names - {"skill"}


def test_dependencies_are_exactly_what_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = declared(project["dependencies"])
    extras = {name: declared(lines) for name, lines in project["optional-dependencies"].items()}
    used = distributions(imported("src")) - {"skill", "snakemake-interface-logger-plugins"}
    optional = set().union(*(names for extra, names in extras.items() if extra != "dev"))
    assert used - optional == base
    programs = {"dvc", "snakemake-executor-plugin-slurm"}  # started, not imported
    programs |= extras["teachers"] | extras["alignment"]  # not installed here
    assert optional - programs <= used
    tools = {"dvc-s3", "flask", "flask-cors", "import-linter", "mkdocs", "mkdocstrings", "moto",
             "mypy", "pandas-stubs", "pytest-timeout", "pytest-xdist", "ruff",
             "snakefmt"}  # fmt: skip
    tools |= {name for name in extras["dev"] if name.startswith("types-")}
    in_tests = distributions(imported("tests", "tools", "benchmarks"))
    assert extras["dev"] - tools - optional <= in_tests


if __name__ == "__main__":
    FROZEN.write_text(surface())
