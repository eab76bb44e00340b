"""What a run will cost before it is paid for: jobs, hours, disk and download of every phase.

Hours come from the figures of `data/costs.csv`, each with its source, and from lengths of audio: of
the manifests that are there, else of `data/corpora.csv`. They are estimates, right within a factor
of two at best: other machines, batches and library versions differ. `GPU-hours` are those of one
A100, `CPU-hours` those of a machine with two cores. What is done is what lies under `results/`,
whichever parameters it was made with; `snakemake -n` says what is stale. Imports no torch.
"""

from pathlib import Path

from skill.config.load import load
from skill.workflow.costs import Plan, make

_HEAD = ("phase", "jobs", "done", "GPU-hours", "CPU-hours", "disk GB", "download GB")


def show(plan: Plan) -> str:
    """The plan as a table: all jobs and done ones; costs are of what is left."""
    lines, totals = [_HEAD], [0.0] * 6
    for phase, jobs in plan.phases.items():
        left = [job for job in jobs if not job.done]
        sums = [
            float(len(jobs)), float(len(jobs) - len(left)),
            sum(job.gpu for job in left) / 3600, sum(job.cpu for job in left) / 3600,
            sum(job.disk for job in left) / 1e9, sum(job.download for job in left) / 1e9,
        ]  # fmt: skip
        totals = [a + b for a, b in zip(totals, sums, strict=True)]
        lines.append(_line(phase, *sums))
    lines.append(_line("all", *totals))
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    text = [
        line[0].ljust(widths[0])
        + "".join("  " + cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))
        for line in lines
    ]
    return "\n".join([*text, *(f"note: {note}" for note in plan.notes)])


def _line(
    name: str, jobs: float, done: float, gpu: float, cpu: float, disk: float, download: float
) -> tuple[str, str, str, str, str, str, str]:
    hours = (f"{gpu:.2f}", f"{cpu:.2f}")
    return (name, f"{jobs:.0f}", f"{done:.0f}", *hours, f"{disk:.2f}", f"{download:.2f}")


def run(file: Path) -> None:
    """The verb `plan`."""
    print(show(make(load(file))))
    print(
        "GPU-hours are those of an A100; without a GPU it is the CPU-hours, of two cores.\n"
        "Estimates, right within a factor of two at best: data/costs.csv says what each rests on.\n"
        "Costs are of what is left to do; `snakemake -n` says what of the rest is stale."
    )
