"""The verbs: the steps of the workflow, each runnable by hand, and what uses their results.

A thin table: what a verb reads and writes, and the one function that does it. Its module, and torch
with it, is imported when the verb runs.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skill import jobs, params
from skill.errors import SkillError
from skill.params import Model

Arguments = argparse.Namespace


def _job(model: type[Model], text: str) -> Model:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise SkillError(f"--params: no valid JSON: {error}") from None
    return params.parse(model, value, "--params")


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


_FILE: dict[str, Any] = {"type": Path, "metavar": "FILE", "required": True}
_MAYBE: dict[str, Any] = {"type": Path, "metavar": "FILE"}
_FILES: dict[str, Any] = {"type": Path, "metavar": "FILE", "nargs": "+", "required": True}
_FOLDER: dict[str, Any] = {"type": Path, "metavar": "DIR", "required": True}
_JSON: dict[str, Any] = {"metavar": "JSON", "required": True}
_SOME: dict[str, Any] = {"type": Path, "metavar": "FILE", "nargs": "+"}
_ALONE: dict[str, Any] = {"type": Path, "metavar": "FILE", "nargs": "*"}
_OPTIONS: dict[str, Any] = {"metavar": "JSON", "default": "{}"}
_FLAG: dict[str, Any] = {"action": "store_true"}
_STAGE: dict[str, dict[str, Any]] = {
    "name": {}, "--params": _JSON, "--teachers": _FILES, "--manifests": _FILES,
    "--grouping": _MAYBE, "--output": _FILE, "--curve": _FILE, "--summary": _FILE,
    "--scratch": _FOLDER,
}  # fmt: skip

VERBS: dict[str, tuple[Callable[[Arguments], None], str, dict[str, dict[str, Any]]]] = {
    "corpora": (
        corpora, "fetch a corpus and write its manifest",
        {"name": {}, "--params": _JSON, "--manifest": _FILE, "--audio": _MAYBE},
    ),
    "teacher": (
        teacher, "fetch or convert a teacher",
        {"name": {}, "--params": _JSON, "--output": _FILE},
    ),
    "pretrain": (
        pretrain, "make a sample teacher by masked prediction",
        {
            "name": {}, "--params": {"metavar": "JSON"},
            "--manifests": {"type": Path, "metavar": "FILE", "nargs": "+"},
            "--output": _MAYBE, "--scratch": {"type": Path, "metavar": "DIR"},
        },
    ),
    "activations": (
        activations, "hidden states of a teacher on the calibration set",
        {"--params": _JSON, "--teacher": _FILE, "--manifests": _FILES, "--output": _FILE},
    ),
    "similarity": (
        similarity, "similarity of layers, of teachers or in any FILE of layer states",
        {
            "files": _ALONE, "--params": _OPTIONS, "--activations": _SOME, "--teachers": _SOME,
            "--manifests": _SOME, "--calibration": {"metavar": "JSON"}, "--output": _MAYBE,
        },
    ),
    "grouping": (
        grouping, "clusters of layers, of teachers or in any FILE of layer states or of CKA",
        {
            "files": _ALONE, "--params": _OPTIONS | {"default": '{"num_clusters": "auto"}'},
            "--compare": _OPTIONS, "--similarity": _MAYBE, "--output": _MAYBE, "--table": _MAYBE,
            "--criterion": _MAYBE,
        },
    ),
    "stability": (
        stability, "how far clusters depend on the utterances that were chosen",
        {"--params": _JSON, "--activations": _FILES, "--output": _FILE, "--curve": _FILE},
    ),
    "study": (
        study, "how clusters depend on calibration audio, linkage and kernel",
        {"--params": _JSON, "--activations": _FILES, "--output": _FILE},
    ),
    "stage1": (stage1, "prune and distil a student", _STAGE),
    "stage2": (stage2, "distil the pruned student", _STAGE | {"--student": _FILE}),
    "imitation": (
        imitation, "how well a student has learned each layer of its teachers",
        {
            "--params": _JSON, "--student": _FILE, "--teachers": _FILES, "--summary": _FILE,
            "--manifests": _FILES, "--output": _FILE,
        },
    ),
    "superb": (
        superb, "train and test the head of one task",
        {
            "upstream": {}, "task": {}, "--params": _JSON, "--encoder": _MAYBE,
            "--manifests": _FILES, "--output": _FILE, "--items": _FILE, "--head": _FILE,
            "--scratch": _FOLDER,
        },
    ),
    "size": (
        size, "parameters, operations and speed of an upstream",
        {"upstream": {}, "--encoder": _MAYBE, "--output": _FILE},
    ),
    "scores": (
        scores, "all results in one table",
        {"--params": _JSON, "--results": _FILES, "--output": _FILE, "--table": _FILE},
    ),
    "paper": (
        paper, "the small table behind a figure",
        {"name": {}, "--params": _JSON, "--inputs": _FILES, "--output": _FILE},
    ),
    "figure": (
        figure, "draw a figure from its table",
        {"name": {}, "--table": _FILE, "--pdf": _FILE, "--png": _FILE},
    ),
    "predict": (
        predict, "what a trained head says of one's own files",
        {
            "task": {}, "files": {"type": Path, "nargs": "+", "help": "recordings"},
            "--head": _FILE | {"help": "results/superb/UPSTREAM/TASK.safetensors"},
            "--encoder": _MAYBE
            | {"help": "weights of the upstream, results/stage2/STUDENT.safetensors; none: FBANK"},
            "--json": _FLAG,
        },
    ),
    "export": (
        export, "write a student for `transformers` or, if so asked, in other forms",
        {
            "student": {"help": "a name under results/stage2/, or a file"},
            "folder": {"type": Path}, "--onnx": _FLAG, "--s3prl": _FLAG,
            "--dphubert": _FLAG,
            "--states": {"choices": ("all", "last"), "default": "all", "help": "of ONNX models"},
        },
    ),
    "plan": (
        plan, "jobs, hours, disk and download of every phase, and what is done",
        {"file": {"type": Path, "nargs": "?", "default": Path("params.yaml")}},
    ),
    "check": (check, "check a file of parameters", {"file": {"type": Path}}),
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser("python -m skill", description=__doc__)
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, (_, text, options) in VERBS.items():
        verb = verbs.add_parser(name, help=text, description=text)
        for option, settings in options.items():
            verb.add_argument(option, **settings)
        verb.add_argument("--threads", type=int, help="of torch and its libraries")
        verb.add_argument("--gpus", type=int, default=1, help="more than one: one process for each")
    return top
