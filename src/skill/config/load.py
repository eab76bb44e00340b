"""`params.yaml` as typed, checked parameters: the one door."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError

from skill.config.params import Params
from skill.config.students import expand
from skill.utils.errors import SkillError, describe

_LARGEST = 2**20  # bytes
_VALUES = 100_000  # with every alias written out
_RENAMED = {
    "grouping": "grouping is called clustering",
    "objective": "objective is called method_overrides",
}


def load(path: str | Path) -> Params:
    """Read, expand, resolve and check a file of parameters.

    Raises:
        SkillError: anything in it that is wrong, with the file and the key's path.
    """
    try:
        content = read_yaml(Path(path))
        _refuse_old_keys(content)
        return expand(content)
    except SkillError as error:
        message = str(error)
        start = "" if message.startswith(f"{path}:") else f"{path}: "
        raise SkillError(start + message) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML 1.2 file, read as DVC reads it.

    Raises:
        SkillError: no such file, or it is no YAML mapping of a sensible size.
    """
    try:
        if path.exists() and not path.is_file():
            raise SkillError(f"{path}: is no file")
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise SkillError(f"{path}: more than {_LARGEST // 2**20} MiB, no file of parameters")
        value = YAML(typ="safe", pure=True).load(content.decode("utf-8-sig"))
        if not isinstance(value, dict):
            raise SkillError(f"{path}: has no sections")
        if _count(value, {}) > _VALUES:
            raise SkillError(f"{path}: more than {_VALUES} values, no file of parameters")
    except OSError as error:
        raise SkillError(f"{path}: cannot be read: {describe(error)}") from None
    except DuplicateKeyError as error:
        key = str(error.problem).split('"')[1]
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise SkillError(f"{path}: {key}: stands twice, again at line {line}") from None
    except (YAMLError, ValueError, RecursionError, ArithmeticError) as error:
        text = " ".join(str(error).split())[:300]
        raise SkillError(f"{path}: no valid YAML: {text}") from None
    return value


def _count(value: Any, counted: dict[int, float]) -> float:
    """Values in `value`, with every alias written out; those that hold themselves are endless."""
    if not isinstance(value, dict | list | set | tuple):
        return 1
    if id(value) not in counted:
        counted[id(value)] = float("inf")
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        counted[id(value)] = 1 + sum(_count(part, counted) for part in parts)
    return counted[id(value)]


def _refuse_old_keys(content: dict[str, Any]) -> None:
    """Say how a key of an older version is called today."""
    sections = {"": content}
    students = content.get("students")
    if isinstance(students, dict):
        sections |= {f"students.{name}.": s for name, s in students.items() if isinstance(s, dict)}
    for path, section in sections.items():
        for key, text in _RENAMED.items():
            if key in section:
                raise SkillError(f"{path}{key}: {text} since version 0.2")
    paper = content.get("paper")
    if isinstance(paper, dict) and "baseline" in paper:
        raise SkillError(
            "paper.baseline: since version 0.2 every student says compare_with: STUDENT"
        )
