"""What a run will cost before it is paid for: jobs, hours, disk and download of every phase.

Hours come from the figures of `data/costs.csv`, each with its source, and from lengths of audio: of
the manifests that are there, else of `data/corpora.csv`. They are estimates, right within a factor
of two at best: other machines, batches and library versions differ. `GPU-hours` are those of one
A100, `CPU-hours` those of a machine with two cores. The heads of tasks cost nothing here but the
passes through the upstream. What is done is what lies under `results/`, whichever parameters it was
made with; `snakemake -n` says what is stale. Imports no torch.
"""

from collections.abc import Sequence
from pathlib import Path

from skill.estimates import Plan, make
from skill.params import load


def show(plan: Plan) -> str:
    """The plan as a table: all jobs and done ones; costs are of what is left."""
    head: tuple[str, ...] = (
        "phase",
        "jobs",
        "done",
        "GPU-hours",
        "CPU-hours",
        "disk GB",
        "download GB",
    )
    lines, totals = [head], [0.0] * 6
    for phase, jobs in plan.phases.items():
        left = [job for job in jobs if not job.done]
        sums = [
            float(len(jobs)), float(len(jobs) - len(left)),
            sum(job.gpu for job in left) / 3600, sum(job.cpu for job in left) / 3600,
            sum(job.disk for job in left) / 1e9, sum(job.download for job in left) / 1e9,
        ]  # fmt: skip
        totals = [a + b for a, b in zip(totals, sums, strict=True)]
        lines.append(_line(phase, sums))
    lines.append(_line("all", totals))
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = [
        line[0].ljust(widths[0])
        + "".join("  " + cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))
        for line in lines
    ]
    return "\n".join([*text, *(f"note: {note}" for note in plan.notes)])


def _line(name: str, sums: Sequence[float]) -> tuple[str, ...]:
    return (
        name,
        *(f"{n:.0f}" for n in sums[:2]),
        *(f"{n:.1f}" if n >= 10 else f"{n:.2f}" for n in sums[2:]),
    )


def run(file: Path) -> None:
    """The verb `plan`."""
    print(show(make(load(file))))
    print("Hours of an A100, or of two CPU cores; sources: data/costs.csv. Stale: `snakemake -n`.")
