"""`params.yaml` as typed, checked parameters."""

from pathlib import Path
from typing import Any

from skill.config.params import Params
from skill.config.students import expand
from skill.config.yaml_file import read_yaml
from skill.utils.errors import SkillError

_RENAMED = {"grouping": "clustering"}


def load(path: str | Path) -> Params:
    """Read, expand, resolve and check a file of parameters.

    Raises:
        SkillError: anything in it that is wrong, with the file and the key's path.
    """
    path = Path(path)
    try:
        written = read_yaml(path)
        _refuse_old_keys(written)
        return expand(written)
    except SkillError as error:
        message = str(error)
        raise SkillError(
            message if message.startswith(f"{path}:") else f"{path}: {message}"
        ) from None


def _refuse_old_keys(written: dict[str, Any]) -> None:
    """Say how a key of an older version is called today."""
    sections = {"": written}
    students = written.get("students")
    if isinstance(students, dict):
        sections |= {f"students.{name}.": s for name, s in students.items() if isinstance(s, dict)}
    for path, section in sections.items():
        for old, new in _RENAMED.items():
            if old in section:
                raise SkillError(f"{path}{old}: {old} is called {new} since version 0.2")
