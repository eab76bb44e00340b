"""Options that several commands have, and the parameters that come as JSON."""

import json
from pathlib import Path
from typing import Annotated

from typer import Option

from skill.config.types import Model, parse
from skill.utils.errors import SkillError

File = Annotated[Path, Option(metavar="FILE", show_default=False)]
Files = Annotated[list[Path], Option(metavar="FILE...", show_default=False)]
MaybeFile = Annotated[Path | None, Option(metavar="FILE", show_default=False)]
MaybeFiles = Annotated[list[Path] | None, Option(metavar="FILE...", show_default=False)]
Folder = Annotated[Path, Option(metavar="DIR", show_default=False)]
Job = Annotated[str, Option("--params", metavar="JSON", help="What the rule's `job` says.")]
Clusters = Annotated[
    Path | None, Option(metavar="FILE", help="Clusters of layers, where the method learns them.")
]
Output = Annotated[
    Path, Option(metavar="FILE", show_default=False, help="Others of its name lie beside it.")
]
Upstream = Annotated[
    Path | None, Option("--encoder", metavar="FILE", help="Weights; none: log-mel features.")
]


def parse_job(model: type[Model], text: str, option: str = "--params") -> Model:
    """The parameters of a command.

    Raises:
        SkillError: no JSON, or not what `model` allows.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SkillError(f"{option}: no valid JSON: {error}") from None
    return parse(model, value, option)
