"""A table of runs of the same parameters on different processors, for docs/processors.md.

    python tools/runs.py RUN RUN…

Each RUN is a folder with results/. Run by `make readme RUNS="RUN …"`. No number there is typed.
"""

import sys
from pathlib import Path

import pandas as pd
from readme import rewrite

from skill.paper.tables import machines
from skill.superb.metrics import format_value
from skill.utils import machine

PAGE = Path("docs/processors.md")
KEY = ["task", "metric", "upstream"]
NAMES = "ABCDEFGHIJ"


def machine_of(run: Path) -> str:
    """One line on the machine of all JSON files of stages and tasks of a run."""
    files = [*run.glob("results/stage*/*.json"), *run.glob("results/superb/*/*.json")]
    return machine.line(machines(sorted(files))).removeprefix("Computed on ")


def table(runs: list[Path]) -> str:
    """Values side by side, the deviation between runs, and that of a mean of heads."""
    tables = [pd.read_csv(run / "results/paper/results.csv").set_index(KEY) for run in runs]
    values = pd.concat([t["value"] for t in tables], axis=1, keys=list(NAMES[: len(runs)]))
    heads = pd.concat([t["head_deviation"] / t["head_seeds"] ** 0.5 for t in tables], axis=1).mean(
        axis=1
    )
    names = list(values.columns)
    lines = [
        "| task | metric | upstream | " + " | ".join(names) + " | between runs | between heads |",
        "| --- | --- | --- |" + " --- |" * (len(names) + 2),
    ]
    for place, row in values.iterrows():
        task, metric, upstream = place
        between = float(row.std(ddof=1))
        of_heads = float(heads[place])
        marked = " *" if of_heads == of_heads and between > 2 * of_heads else ""
        cells = [format_value(value, metric) for value in row]
        cells.append(format_value(between, metric) + marked)
        cells.append("" if of_heads != of_heads else format_value(of_heads, metric))
        lines.append(f"| {task.upper()} | {metric} | {upstream} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Write the part of the page between its marks."""
    runs = [Path(name) for name in sys.argv[1:]]
    if not 2 <= len(runs) <= len(NAMES):
        sys.exit(f"{sys.argv[0]} RUN RUN… (two to {len(NAMES)} folders of runs)")
    named = [f"* {name}: {machine_of(run)}" for name, run in zip(NAMES, runs, strict=False)]
    rewrite(PAGE, "\n".join([*named, "", table(runs)]), "runs")


if __name__ == "__main__":
    main()
