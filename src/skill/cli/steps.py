"""Commands that the rules of the workflow run, in the order of its phases."""

from pathlib import Path
from typing import Annotated

from typer import Option

from skill.cli.command import STEPS, command
from skill.cli.options import (
    Clusters,
    File,
    Files,
    Folder,
    Job,
    MaybeFile,
    MaybeFiles,
    Output,
    Upstream,
    parse_job,
)
from skill.config import jobs, params
from skill.config.load import load
from skill.utils.errors import SkillError


@command(
    STEPS,
    "prepare a corpus and its manifest",
    'beeps --params \'{"kind": "synthetic"}\' --output beeps.csv',
)
def corpus(name: str, job: Job, output: Output) -> None:
    """Fetch a corpus; write its manifest, and converted audio (.flac) beside it."""
    from skill.data.corpora.prepare import run

    settings = parse_job(params.Corpus, job)
    run(name, settings, output, output.with_suffix(".flac") if settings.stored else None)


@command(
    STEPS,
    "fetch or convert a teacher",
    'mine --params \'{"source": "folder"}\' --output mine.safetensors',
)
def teacher(name: str, job: Job, output: File) -> None:
    """Fetch a teacher from the model hub, or convert its file or folder."""
    from skill.teachers.fetch import run_teacher

    run_teacher(name, parse_job(params.Teacher, job), output)


@command(STEPS, "pretrain a small teacher", "wavlm-sample", module="skill.teachers.pretraining")
def pretrain(
    name: str,
    job: Annotated[
        str | None, Option("--params", metavar="JSON", help="Default: params.yaml's.")
    ] = None,
    manifests: MaybeFiles = None,
    output: MaybeFile = None,
    scratch: Annotated[Path | None, Option(metavar="DIR")] = None,
) -> None:
    """Pretrain a small teacher by masked prediction.

    Without options: by params.yaml, into data/teachers/.
    """
    from skill.teachers.pretraining import run

    if job is not None:
        settings = parse_job(jobs.PretrainingJob, job)
    else:
        settings = jobs.PretrainingJob.of(load("params.yaml"), name)
    manifests = manifests or [Path(f"results/corpora/{n}.csv") for n in settings.unlabelled.corpora]
    output = output or Path(f"data/teachers/{name}.safetensors")
    run(name, settings, manifests, output, scratch or Path(f"scratch/teachers/{name}"))


@command(
    STEPS,
    "hidden states on calibration audio",
    "--params JSON --teacher t.safetensors --manifests queen.csv --output states.safetensors",
    gpu=True,
)
def activations(job: Job, teacher: File, manifests: Files, output: File) -> None:
    """Write a teacher's hidden states on the calibration set."""
    from skill.similarity.activations import run

    run(teacher, manifests, parse_job(jobs.ActivationsJob, job), output)


@command(
    STEPS,
    "CKA between the teachers' layers",
    "--params '{}' --activations states.safetensors --output cka.csv",
)
def similarity(
    job: Job,
    output: File,
    activations: MaybeFiles = None,
    teachers: MaybeFiles = None,
    manifests: MaybeFiles = None,
    calibration: Annotated[str | None, Option(metavar="JSON")] = None,
) -> None:
    """Compare layers by CKA: from files of states, or of teachers while they run.

    Give --activations, or --teachers, --manifests and --calibration (the job of `activations`) to
    keep no states.
    """
    from skill.similarity import steps

    section = parse_job(params.Similarity, job)
    if activations:
        steps.compare(activations, section, output)
    elif teachers and manifests and calibration:
        audio = parse_job(jobs.ActivationsJob, calibration, "--calibration")
        steps.compare_streaming(teachers, manifests, audio, section, output)
    else:
        raise SkillError("give --activations, or --teachers, --manifests and --calibration")


@command(
    STEPS,
    "cluster similar layers",
    "--params '{\"num_clusters\": 4}' --similarity cka.csv --output clusters.json",
)
def cluster(job: Job, similarity: File, output: Output) -> None:
    """Cluster the layers of a table of CKA.

    Writes the clusters (.json), the dendrogram's table (.csv) and the silhouettes (-criterion.csv).
    """
    from skill.similarity.steps import cluster as run

    criterion = output.with_name(f"{output.stem}-criterion.csv")
    run(
        similarity, parse_job(params.Clustering, job), output, output.with_suffix(".csv"), criterion
    )


@command(
    STEPS,
    "prune and distil a student",
    "s --params JSON --teachers t.safetensors --manifests queen.csv "
    "--output results/stage1/s.safetensors --scratch scratch/s",
    gpu=True,
    processes=True,
    module="skill.distillation.stages",
)
def stage1(
    name: str,
    job: Job,
    teachers: Files,
    manifests: Files,
    output: Output,
    scratch: Folder,
    clustering: Clusters = None,
) -> None:
    """Prune and distil a student at once; writes its curve (.csv) and summary (.json), too."""
    from skill.distillation import stages

    files = stages.StageFiles(teachers, manifests, clustering, output, scratch)
    stages.stage1(name, parse_job(jobs.Stage1Job, job), files)


@command(
    STEPS,
    "distil the pruned student",
    "s --params JSON --student results/stage1/s.safetensors --teachers t.safetensors "
    "--manifests queen.csv --output results/stage2/s.safetensors --scratch scratch/s",
    gpu=True,
    processes=True,
    module="skill.distillation.stages",
)
def stage2(
    name: str,
    job: Job,
    student: File,
    teachers: Files,
    manifests: Files,
    output: Output,
    scratch: Folder,
    clustering: Clusters = None,
) -> None:
    """Distil the pruned student further; writes its curve (.csv) and summary (.json), too."""
    from skill.distillation import stages

    files = stages.StageFiles(teachers, manifests, clustering, output, scratch, student)
    stages.stage2(name, parse_job(jobs.Stage2Job, job), files)


@command(
    STEPS,
    "train and test one SUPERB head",
    "s sid --params JSON --encoder results/stage2/s.safetensors --manifests queen.csv "
    "--output results/superb/s/sid.json --scratch scratch/sid",
    gpu=True,
    module="skill.superb.evaluate",
)
def evaluate(
    upstream: str,
    task: str,
    job: Job,
    manifests: Files,
    output: Output,
    scratch: Folder,
    encoder: Upstream = None,
) -> None:
    """Train and test the head of one SUPERB task on an upstream.

    Writes the result (.json), counts of each item (.csv) and the head (.safetensors).
    """
    from skill.superb.evaluate import run

    items, head = output.with_suffix(".csv"), output.with_suffix(".safetensors")
    settings = parse_job(jobs.TaskJob, job)
    run(upstream, task, settings, encoder, manifests, output, items, head, scratch)


@command(
    STEPS,
    "parameters, MACs and speed",
    "s --encoder results/stage2/s.safetensors --output size.json",
    gpu=True,
)
def profile(upstream: str, output: File, encoder: Upstream = None) -> None:
    """Measure parameters, multiply-accumulates and real-time factor of an upstream."""
    from skill.superb.profile import run

    run(upstream, encoder, output)


@command(
    STEPS,
    "R² of maps to teacher layers",
    "--params JSON --student results/stage2/s.safetensors --teachers t.safetensors "
    "--summary results/stage1/s.json --manifests queen.csv --output regression.csv",
    gpu=True,
)
def regression(
    job: Job, student: File, teachers: Files, summary: File, manifests: Files, output: File
) -> None:
    """Regress each teacher layer on a student layer; writes 1 − R² of the best linear map."""
    from skill.similarity.regression import run

    run(student, teachers, summary, manifests, parse_job(jobs.ActivationsJob, job), output)
