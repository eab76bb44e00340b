"""What all parameters are made of: strict types, sections, and errors that name the key.

Imports no torch: the Snakefile imports this.
"""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skill.utils.errors import SkillError

_MOST = 2_000_000_000  # of steps, units, seconds or anything else that is counted
_SHOWN = 20  # mistakes in one message

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=100)]
NonNegativeInt = Annotated[int, Field(strict=True, ge=0, le=_MOST)]
PositiveInt = Annotated[int, Field(strict=True, ge=1, le=_MOST)]
NonNegativeFloat = Annotated[float, Field(strict=True, ge=0, le=_MOST, allow_inf_nan=False)]
PositiveFloat = Annotated[float, Field(strict=True, gt=0, le=_MOST, allow_inf_nan=False)]
Seconds = PositiveFloat
Fraction = Annotated[float, Field(strict=True, gt=0, lt=1)]
Probability = Annotated[float, Field(strict=True, ge=0, lt=1)]
StrictBool = Annotated[bool, Field(strict=True)]
Width = Annotated[int, Field(strict=True, ge=1, le=65_536)]
"""Units or channels of a layer."""
Units = Annotated[int, Field(strict=True, ge=0, le=65_536)]
"""The same of a layer that may be missing."""
Blocks = Annotated[int, Field(strict=True, ge=1, le=1_000)]
Model = TypeVar("Model", bound=BaseModel)


class Section(BaseModel):
    """A section of the parameters: cannot be changed, has no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def parse(model: type[Model], value: Any, path: str = "") -> Model:
    """`value` as a `model`.

    Raises:
        SkillError: it is none; the message has the key's path and every mistake found.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        mistakes = [_readable(e, path) for e in error.errors(include_url=False)]
        more = [f"and {len(mistakes) - _SHOWN} more"] if len(mistakes) > _SHOWN else []
        raise SkillError("; ".join(mistakes[:_SHOWN] + more)) from None
    except RecursionError:
        raise SkillError(f"{path or 'the file'}: is nested too deeply") from None


def _readable(error: Mapping[str, Any], path: str) -> str:
    where = ".".join([*([path] if path else []), *(str(part)[:100] for part in error["loc"])])
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key"
    if error["type"] == "missing":
        return f"{where}: missing"
    message = error["msg"].removeprefix("Value error, ")
    value = error["input"]
    text = repr(value)[:100] if isinstance(value, str | int | float | bool | None) else ""
    return f"{where}: {message}" + (f" (not {text})" if text else "")
