"""What each verb of the command line (`skill.command`) calls.

The module that does the work, and torch with it, is imported when the verb runs.
"""

import argparse
import json
from pathlib import Path

from skill.config import jobs, params
from skill.config.load import load
from skill.config.types import Model, parse
from skill.utils.errors import SkillError

Arguments = argparse.Namespace


def _job(model: type[Model], text: str) -> Model:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise SkillError(f"--params: no valid JSON: {error}") from None
    return parse(model, value, "--params")


def corpora(a: Arguments) -> None:
    from skill.data.corpora.prepare import run

    run(a.name, _job(params.Corpus, a.params), a.manifest, a.audio)


def teacher(a: Arguments) -> None:
    from skill.teachers.fetch import run_teacher

    run_teacher(a.name, _job(params.Teacher, a.params), a.output)


def pretrain(a: Arguments) -> None:
    """By hand, the name is enough: parameters and places are those of the working directory."""
    from skill.teachers.pretraining import run

    job = _job(jobs.PretrainingJob, a.params) if a.params else None
    if job is None:
        written = load("params.yaml")
        if a.name not in written.pretraining:
            raise SkillError(f"params.yaml: there is no pretraining.{a.name}")
        section = written.pretraining[a.name]
        job = jobs.PretrainingJob(unlabelled=written.unlabelled, pretraining=section)
    manifests = a.manifests or [Path(f"results/corpora/{n}.csv") for n in job.unlabelled.corpora]
    output = a.output or Path(f"data/teachers/{a.name}.safetensors")
    run(a.name, job, manifests, output, a.scratch or Path(f"scratch/teachers/{a.name}"))


def activations(a: Arguments) -> None:
    from skill.similarity.activations import run

    run(a.teacher, a.manifests, _job(jobs.ActivationsJob, a.params), a.output)


def similarity(a: Arguments) -> None:
    section = _job(params.Similarity, a.params)
    if a.files:
        from skill.paper.analyze import similarity as run

        run(a.files, section, a.output)
    elif not a.output or not (a.activations or (a.teachers and a.manifests and a.calibration)):
        raise SkillError(
            "similarity: give FILE, or --output and --activations, or --output and --teachers, "
            "--manifests and --calibration"
        )
    elif a.activations:
        from skill.similarity.matrix_step import run as run_cached

        run_cached(a.activations, section, a.output)
    else:
        from skill.similarity.matrix_step import run_stream

        calibration = _job(jobs.ActivationsJob, a.calibration)
        run_stream(a.teachers, a.manifests, calibration, section, a.output)


def clustering(a: Arguments) -> None:
    section = _job(params.Clustering, a.params)
    if a.files:
        from skill.paper.analyze import clustering as run

        run(a.files, section, a.output, compare=_job(params.Similarity, a.compare), seed=0)
    elif not (a.similarity and a.output and a.table):
        raise SkillError("clustering: give FILE, or --similarity, --output and --table")
    else:
        from skill.similarity.clustering_step import run as run_cached

        run_cached(a.similarity, section, a.output, a.table, a.criterion)


def stability(a: Arguments) -> None:
    from skill.similarity.sensitivity import run_stability

    run_stability(a.activations, _job(jobs.StudyJob, a.params), a.output, a.curve)


def study(a: Arguments) -> None:
    from skill.similarity.sensitivity import run_study

    run_study(a.activations, _job(jobs.StudyJob, a.params), a.output)


def stage1(a: Arguments) -> None:
    from skill.distillation.stages import stage1 as run

    run(
        a.name, _job(jobs.Stage1Job, a.params), a.teachers, a.manifests, a.clustering,
        a.output, a.curve, a.summary, a.scratch,
    )  # fmt: skip


def stage2(a: Arguments) -> None:
    from skill.distillation.stages import stage2 as run

    run(
        a.name, _job(jobs.Stage2Job, a.params), a.student, a.teachers, a.manifests, a.clustering,
        a.output, a.curve, a.summary, a.scratch,
    )  # fmt: skip


def regression(a: Arguments) -> None:
    from skill.similarity.regression import run

    job = _job(jobs.ActivationsJob, a.params)
    run(a.student, a.teachers, a.summary, a.manifests, job, a.output)


def superb(a: Arguments) -> None:
    from skill.superb.evaluate import run

    run(
        a.upstream, a.task, _job(jobs.TaskJob, a.params), a.encoder, a.manifests,
        a.output, a.items, a.head, a.scratch,
    )  # fmt: skip


def size(a: Arguments) -> None:
    from skill.superb.profile import run

    run(a.upstream, a.encoder, a.output)


def scores(a: Arguments) -> None:
    from skill.superb.scores import run

    run(a.results, _job(jobs.ScoresJob, a.params), a.output, a.table)


def paper(a: Arguments) -> None:
    from skill.paper.tables import run

    run(a.name, _job(jobs.PaperJob, a.params), a.inputs, a.output)


def figure(a: Arguments) -> None:
    from skill.paper.figures import draw

    draw(a.name, a.table, a.pdf, a.png)


def predict(a: Arguments) -> None:
    from skill.superb.predict import run as run

    run(a.task, a.files, a.head, a.encoder, a.json)


def export(a: Arguments) -> None:
    from skill.encoder.formats.export import FORMS, run
    from skill.paper import model_card

    forms = [form for form in FORMS if getattr(a, form, False)]
    run(a.student, a.folder, forms, a.states)
    if not forms:
        model_card.write(a.student, a.folder)


def check(a: Arguments) -> None:
    read = load(a.file)
    print(f"{a.file}: {len(read.students)} students, {len(read.superb.tasks)} tasks")


def plan(a: Arguments) -> None:
    from skill.workflow.plan import run

    run(a.file)
