"""Commands that plan a run and check its parameters and results."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from skill.cli.command import PLAN, command


@command(PLAN, "check parameters and machine", "params.yaml")
def check(
    file: Annotated[Path, Argument(help="A file of parameters.")] = Path("params.yaml"),
) -> None:
    """Check every key, value and reference of a file of parameters, then the machine.

    The run's models compute a second of speech in float32 and bf16; the table shows how far states
    and gradients are from exact ones.
    """
    from skill.workflow.checks import load_checked

    checked = load_checked(file)
    print(f"{file}: {len(checked.students)} students, {len(checked.superb.tasks)} tasks")

    from skill.workflow.machine_table import print_table

    print_table(checked)


@command(PLAN, "estimate jobs, hours and disk", "presets/paper.yaml")
def plan(
    file: Annotated[Path, Argument(help="A file of parameters.")] = Path("params.yaml"),
) -> None:
    """Estimate jobs, compute hours, disk and downloads of every phase that is left to run."""
    from skill.workflow.costs import run

    run(file)


@command(PLAN, "compare a run with the expected one", "params.yaml")
def verdict(
    file: Annotated[Path, Argument(help="The run's parameters.")] = Path("params.yaml"),
    results: Annotated[Path, Option(metavar="FILE", help="The run's table.")] = Path(
        "results/paper/results.csv"
    ),
    expected: Annotated[Path, Option(metavar="DIR", help="Tables of expected values.")] = Path(
        "presets/expected"
    ),
) -> None:
    """Compare a run's table with the expected one of its parameters; fail where a value falls out.

    Parameters that have no expected table get no verdict, and hear why.
    """
    from skill.paper.verdict import run

    run(file, results, expected)


@command(PLAN, "make a table of expected values", "run1 run2 --output presets/expected/sample.csv")
def expect(
    runs: Annotated[list[Path], Argument(help="Folders of runs, on different processors.")],
    output: Annotated[Path, Option(metavar="FILE", help="A .csv; the parameters beside it.")],
    file: Annotated[
        Path, Option("--params", metavar="FILE", help="The parameters of the runs.")
    ] = Path("params.yaml"),
) -> None:
    """Make a table of expected values, with bands from the variation between several runs."""
    from skill.paper.verdict import write_expected

    write_expected(runs, file, output)
