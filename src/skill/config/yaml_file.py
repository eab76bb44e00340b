"""Reading a YAML file of parameters: numbers as people write them, mistakes in words."""

import re
from pathlib import Path
from typing import Any

import yaml

from skill.utils.errors import SkillError


class _Loader(yaml.SafeLoader):
    """YAML where `2e-4` is a number and a key that stands twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                mark = node.start_mark
                raise SkillError(f"{key}: stands twice in the mapping at line {mark.line + 1}")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    "-+0123456789",
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        SkillError: no such file, or it is no YAML mapping.
    """
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise SkillError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise SkillError(f"{path}: no valid YAML: {' '.join(str(error).split())}") from None
    except SkillError as error:
        raise SkillError(f"{path}: {error}") from None
    if not isinstance(value, dict):
        raise SkillError(f"{path}: has no sections")
    return value
