"""How a command is registered: its panel, its help with an example, the options that all have."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer import Option
from typer.core import TyperCommand, TyperGroup

from skill.cli import process

STUDENT, PLAN = "Use a student", "Plan and check"
STEPS, TABLES = "Steps of the workflow", "Tables and figures"


class _Group(TyperGroup):
    """Commands whose help fits one screen: four panels of two columns."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        lines = [
            "Usage: skill COMMAND ...      `skill COMMAND --help` explains one, with an example.",
            "Compress WavLM, HuBERT and wav2vec 2.0 by pruning and distillation; test on SUPERB.",
        ]
        for panel in (STUDENT, PLAN, STEPS, TABLES):
            lines.append(f"── {panel} ".ljust(98, "─"))
            cells = [
                f"  {name:<12}{COMMANDS[name].summary:<36}"
                for name in self.commands
                if COMMANDS[name].panel == panel
            ]
            left = (len(cells) + 1) // 2
            right = [*cells[left:], ""]
            lines += [(a + b).rstrip() for a, b in zip(cells[:left], right, strict=False)]
        lines.append("── Options ".ljust(98, "─"))
        lines.append(
            "  --version, --help, --install-completion, --show-completion (for your shell)"
        )
        formatter.write("\n".join(lines) + "\n")


class _Command(TyperCommand):
    """A command whose options of several files take all words up to the next option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        several = {o for p in self.params if getattr(p, "multiple", False) for o in p.opts}
        words: list[str] = []
        option = ""
        for word in args:
            if word.startswith("-"):
                option = word if word in several else ""
            if not option:
                words.append(word)
            elif word != option:
                words += [option, word]
        return list(super().parse_args(ctx, words))


@dataclass(frozen=True)
class Registered:
    """What is known of a command without running it."""

    panel: str
    summary: str
    gpu: bool
    processes: bool


COMMANDS: dict[str, Registered] = {}
app = typer.Typer(
    name="skill", cls=_Group, rich_markup_mode=None, pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)  # fmt: skip


def command(
    panel: str,
    summary: str,
    example: str,
    *,
    gpu: bool = False,
    processes: bool = False,
    module: str = "",
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command.

    Args:
        gpu: it takes a GPU.
        processes: or several, with a process for each.
        module: of a long job, whose finished work is taken over where nobody has recorded it.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function)
        added: dict[str, tuple[Any, Any]] = {
            "context": (typer.Context, inspect.Parameter.empty),
            "threads": (
                Annotated[int | None, Option(min=1, help="Of torch and its libraries.")],
                None,
            ),
        }
        if processes:
            several = Option("--gpus", min=0, help="More than one: a process for each.")
            added["processes"] = (Annotated[int, several], 1)

        @functools.wraps(function)
        def run(
            context: typer.Context, threads: int | None, processes: int = 1, **options: Any
        ) -> int:
            work = functools.partial(function, **options)
            call = process.Call(context.obj, threads, processes, gpu, module, options)
            return process.run(work, call)

        kind = inspect.Parameter.KEYWORD_ONLY
        extra = [
            inspect.Parameter(name, kind, annotation=annotation, default=default)
            for name, (annotation, default) in added.items()
        ]
        parameters = [p.replace(kind=kind) for p in signature.parameters.values()]
        setattr(run, "__signature__", signature.replace(parameters=[*parameters, *extra]))  # noqa: B010
        run.__annotations__ = {p.name: p.annotation for p in (*parameters, *extra)}
        name = function.__name__
        COMMANDS[name] = Registered(panel, summary, gpu, processes)
        epilog = f"\b\nExample:\n  skill {name} {example}"
        app.command(name, cls=_Command, epilog=epilog, short_help=summary)(run)
        return function

    return register


def _version(shown: bool) -> None:
    if shown:
        print(f"skill {version('skill')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Options of the command itself."""
