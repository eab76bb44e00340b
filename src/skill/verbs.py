"""What each verb of the command line (`skill.command`) calls.

The module that does the work, and torch with it, is imported when the verb runs.
"""

import argparse
import json
from pathlib import Path

from skill import jobs, params
from skill.errors import SkillError
from skill.schema import Model, parse

Arguments = argparse.Namespace


def _job(model: type[Model], text: str) -> Model:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise SkillError(f"--params: no valid JSON: {error}") from None
    return parse(model, value, "--params")


def corpora(a: Arguments) -> None:
    job = _job(params.Corpus, a.params)
    if job.stored:
        from skill.corpora.build import run

        run(a.name, job, a.manifest, a.audio)
    else:
        from skill.corpora.listing import run as run_listed

        run_listed(a.name, job, a.manifest)


def teacher(a: Arguments) -> None:
    from skill.checkpoints import run_teacher

    run_teacher(a.name, _job(params.Teacher, a.params), a.output)


def pretrain(a: Arguments) -> None:
    """By hand, the name is enough: parameters and places are those of the working directory."""
    from skill.pretraining import run

    job = _job(jobs.PretrainingJob, a.params) if a.params else None
    if job is None:
        written = params.load("params.yaml")
        if a.name not in written.pretraining:
            raise SkillError(f"params.yaml: there is no pretraining.{a.name}")
        section = written.pretraining[a.name]
        job = jobs.PretrainingJob(unlabelled=written.unlabelled, pretraining=section)
    manifests = a.manifests or [Path(f"results/corpora/{n}.csv") for n in job.unlabelled.corpora]
    output = a.output or Path(f"data/teachers/{a.name}.safetensors")
    run(a.name, job, manifests, output, a.scratch or Path(f"scratch/teachers/{a.name}"))


def activations(a: Arguments) -> None:
    from skill.activations import run

    run(a.teacher, a.manifests, _job(jobs.ActivationsJob, a.params), a.output)


def similarity(a: Arguments) -> None:
    section = _job(params.Similarity, a.params)
    if a.files:
        from skill.analysis.alone import similarity as run

        run(a.files, section, a.output)
    elif not a.output or not (a.activations or (a.teachers and a.manifests and a.calibration)):
        raise SkillError(
            "similarity: give FILE, or --output and --activations, or --output and --teachers, "
            "--manifests and --calibration"
        )
    elif a.activations:
        from skill.analysis.similarity import run as run_cached

        run_cached(a.activations, section, a.output)
    else:
        from skill.analysis.similarity import run_stream

        calibration = _job(jobs.ActivationsJob, a.calibration)
        run_stream(a.teachers, a.manifests, calibration, section, a.output)


def grouping(a: Arguments) -> None:
    section = _job(params.Grouping, a.params)
    if a.files:
        from skill.analysis.alone import grouping as run

        run(a.files, section, a.output, compare=_job(params.Similarity, a.compare), seed=0)
    elif not (a.similarity and a.output and a.table):
        raise SkillError("grouping: give FILE, or --similarity, --output and --table")
    else:
        from skill.analysis.grouping import run as run_cached

        run_cached(a.similarity, section, a.output, a.table, a.criterion)


def stability(a: Arguments) -> None:
    from skill.analysis.studies import run_stability

    run_stability(a.activations, _job(jobs.StudyJob, a.params), a.output, a.curve)


def study(a: Arguments) -> None:
    from skill.analysis.studies import run_study

    run_study(a.activations, _job(jobs.StudyJob, a.params), a.output)


def stage1(a: Arguments) -> None:
    from skill.distillation import stage1 as run

    run(
        a.name, _job(jobs.Stage1Job, a.params), a.teachers, a.manifests, a.grouping,
        a.output, a.curve, a.summary, a.scratch,
    )  # fmt: skip


def stage2(a: Arguments) -> None:
    from skill.distillation import stage2 as run

    run(
        a.name, _job(jobs.Stage2Job, a.params), a.student, a.teachers, a.manifests, a.grouping,
        a.output, a.curve, a.summary, a.scratch,
    )  # fmt: skip


def imitation(a: Arguments) -> None:
    from skill.analysis.imitation import run

    job = _job(jobs.ActivationsJob, a.params)
    run(a.student, a.teachers, a.summary, a.manifests, job, a.output)


def superb(a: Arguments) -> None:
    from skill.superb.evaluation import run

    run(
        a.upstream, a.task, _job(jobs.TaskJob, a.params), a.encoder, a.manifests,
        a.output, a.items, a.head, a.scratch,
    )  # fmt: skip


def size(a: Arguments) -> None:
    from skill.superb.cost import run

    run(a.upstream, a.encoder, a.output)


def scores(a: Arguments) -> None:
    from skill.superb.table import run

    run(a.results, _job(jobs.ScoresJob, a.params), a.output, a.table)


def paper(a: Arguments) -> None:
    from skill.paper import run

    run(a.name, _job(jobs.PaperJob, a.params), a.inputs, a.output)


def figure(a: Arguments) -> None:
    from skill.figures import draw

    draw(a.name, a.table, a.pdf, a.png)


def predict(a: Arguments) -> None:
    from skill.superb import predict as run

    run(a.task, a.files, a.head, a.encoder, a.json)


def export(a: Arguments) -> None:
    from skill.export import FORMS, run

    run(a.student, a.folder, [form for form in FORMS if getattr(a, form, False)], a.states)


def check(a: Arguments) -> None:
    read = params.load(a.file)
    print(f"{a.file}: {len(read.students)} students, {len(read.superb.tasks)} tasks")


def plan(a: Arguments) -> None:
    from skill.plan import run

    run(a.file)
