"""The command `skill`: one command for each step of the workflow, and for what uses its results.

The commands stand in a module for each panel of `skill --help`. The module that does the work, and
torch with it, is imported by the command that needs it.
"""

import signal
import sys
from collections.abc import Sequence
from typing import Any

import typer

from skill.cli import planning, steps, student, tables  # noqa: F401  # they register commands
from skill.cli.command import COMMANDS as COMMANDS
from skill.cli.command import app as app
from skill.training import signals
from skill.utils.errors import SkillError, describe
from skill.utils.text import masked, printable


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 (bad input), 2 (usage), 130 or 143 (told to stop)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None):
            signal.signal(signal.SIGINT, signals.interrupt)
        group: Any = typer.main.get_command(app)
        code = group.main(arguments, prog_name="skill", standalone_mode=False, obj=arguments)
    except KeyboardInterrupt:
        signals.arrived()
        code = 130
    except SystemExit:
        signals.arrived()
        raise
    except SkillError as error:
        return _say(f"error: {error}", 1)
    except OSError as error:
        return _say(f"error: {describe(error)}", 1)
    except Exception as error:
        if not hasattr(error, "format_message"):  # a usage error of typer's
            raise
        error.show()  # type: ignore[attr-defined]
        return int(getattr(error, "exit_code", 2))
    if code == 130:
        signals.arrived()
        print("interrupted", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _say(text: str, code: int) -> int:
    print(masked(printable(text)), file=sys.stderr)
    return code
