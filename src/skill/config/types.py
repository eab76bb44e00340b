"""What all parameters are made of: strict types, sections, and errors that name the key.

Imports no torch: the Snakefile imports this.
"""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skill.utils.errors import SkillError

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
Count = Annotated[int, Field(strict=True, ge=0)]
Some = Annotated[int, Field(strict=True, ge=1)]
Rate = Annotated[float, Field(strict=True, ge=0)]
Positive = Annotated[float, Field(strict=True, gt=0)]
Seconds = Annotated[float, Field(strict=True, gt=0)]
Share = Annotated[float, Field(strict=True, gt=0, lt=1)]
Below1 = Annotated[float, Field(strict=True, ge=0, lt=1)]
Switch = Annotated[bool, Field(strict=True)]
Model = TypeVar("Model", bound=BaseModel)


class Section(BaseModel):
    """A section of the parameters: cannot be changed, has no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def parse(model: type[Model], value: Any, path: str = "") -> Model:
    """`value` as a `model`.

    Raises:
        SkillError: it is none; the message has the key's path and every mistake found.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise SkillError("; ".join(_readable(e, path) for e in error.errors())) from None


def _readable(error: Mapping[str, Any], path: str) -> str:
    where = ".".join([*([path] if path else []), *(str(part) for part in error["loc"])])
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key"
    if error["type"] == "missing":
        return f"{where}: missing"
    message = error["msg"].removeprefix("Value error, ")
    given = error["input"]
    shown = f" (not {given!r})" if isinstance(given, str | int | float | bool | None) else ""
    return f"{where}: {message}{shown}"
