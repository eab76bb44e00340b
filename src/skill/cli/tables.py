"""Commands that make tables and figures from the results of a run."""

from skill.cli.command import TABLES, command
from skill.cli.options import File, Files, Job, Output, parse_job
from skill.config import jobs
from skill.utils.errors import known_content


@command(
    TABLES,
    "all results in one table",
    "--params JSON --results results/superb/*/*.json --output results/superb/scores.json",
)
def scores(job: Job, results: Files, output: Output) -> None:
    """Collect all results in one table (.csv) and its summary (.json)."""
    from skill.superb.scores import run

    run(results, parse_job(jobs.ScoresJob, job), output, output.with_suffix(".csv"))


@command(
    TABLES,
    "a table, or the data of a figure",
    "results --params JSON --inputs results/superb/scores.csv --output results.csv",
)
def table(name: str, job: Job, inputs: Files, output: Output) -> None:
    """Make one of the paper's tables, or the small table that a figure is drawn from."""
    from skill.paper.tables import run

    settings = parse_job(jobs.PaperJob, job)
    with known_content(*inputs):
        run(name, settings, inputs, output)


@command(
    TABLES,
    "draw a figure from its table",
    "layers --table results/paper/layers.csv --output layers.pdf",
)
def figure(name: str, table: File, output: Output) -> None:
    """Draw a figure from its table, as .pdf and .png."""
    from skill.paper.figures import draw

    with known_content(table):
        draw(name, table, output.with_suffix(".pdf"), output.with_suffix(".png"))


@command(
    TABLES,
    "clusters over resampled audio",
    "--params JSON --activations states.safetensors --output s-stability.csv",
)
def stability(job: Job, activations: Files, output: Output) -> None:
    """Resample the calibration utterances: how often two layers share a cluster."""
    from skill.similarity.sensitivity import run_stability

    curve = output.with_name(f"{output.stem.removesuffix('-stability')}-criterion.csv")
    run_stability(activations, parse_job(jobs.StudyJob, job), output, curve)


@command(
    TABLES,
    "clusters by audio, linkage, kernel",
    "--params JSON --activations states.safetensors --output calibration.csv",
)
def sensitivity(job: Job, activations: Files, output: File) -> None:
    """Vary calibration audio, linkage and kernel: how the clusters depend on each."""
    from skill.similarity.sensitivity import run_study

    run_study(activations, parse_job(jobs.StudyJob, job), output)
