"""The command `skill`: one command for each step of the workflow, and for what uses its results.

The module that does the work, and torch with it, is imported by the command that needs it.
"""

import functools
import inspect
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option
from typer.core import TyperCommand, TyperGroup

from skill.config import jobs, params
from skill.config.load import load
from skill.config.types import Model, parse
from skill.training import launch, signals
from skill.utils.errors import SkillError, describe
from skill.utils.text import printable
from skill.workflow import finished, gpus, locks

STUDENT, PLAN = "Use a student", "Plan and check"
STEPS, TABLES = "Steps of the workflow", "Tables and figures"

File = Annotated[Path, Option(metavar="FILE", show_default=False)]
Files = Annotated[list[Path], Option(metavar="FILE...", show_default=False)]
MaybeFile = Annotated[Path | None, Option(metavar="FILE", show_default=False)]
MaybeFiles = Annotated[list[Path] | None, Option(metavar="FILE...", show_default=False)]
Folder = Annotated[Path, Option(metavar="DIR", show_default=False)]
Job = Annotated[str, Option("--params", metavar="JSON", help="What the rule's `job` says.")]
Clusters = Annotated[
    Path | None, Option(metavar="FILE", help="Clusters of layers, where the method learns them.")
]
Output = Annotated[
    Path, Option(metavar="FILE", show_default=False, help="Others of its name lie beside it.")
]
Upstream = Annotated[
    Path | None, Option("--encoder", metavar="FILE", help="Weights; none: log-mel features.")
]


class _Group(TyperGroup):
    """Commands whose help fits one screen: four panels of two columns."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        lines = [
            "Usage: skill COMMAND ...      `skill COMMAND --help` explains one, with an example.",
            "Compress WavLM, HuBERT and wav2vec 2.0 by pruning and distillation; test on SUPERB.",
        ]
        for panel in (STUDENT, PLAN, STEPS, TABLES):
            lines.append(f"── {panel} ".ljust(98, "─"))
            cells = [
                f"  {name:<12}{COMMANDS[name].summary:<36}"
                for name in self.commands
                if COMMANDS[name].panel == panel
            ]
            left = (len(cells) + 1) // 2
            right = [*cells[left:], ""]
            lines += [(a + b).rstrip() for a, b in zip(cells[:left], right, strict=False)]
        lines.append("── Options ".ljust(98, "─"))
        lines.append(
            "  --version, --help, --install-completion, --show-completion (for your shell)"
        )
        formatter.write("\n".join(lines) + "\n")


class _Command(TyperCommand):
    """A command whose options of several files take all words up to the next option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        several = {o for p in self.params if getattr(p, "multiple", False) for o in p.opts}
        words: list[str] = []
        option = ""
        for word in args:
            if word.startswith("-"):
                option = word if word in several else ""
            if not option:
                words.append(word)
            elif word != option:
                words += [option, word]
        return list(super().parse_args(ctx, words))


@dataclass(frozen=True)
class Registered:
    """What is known of a command without running it."""

    panel: str
    summary: str
    gpu: bool
    processes: bool


COMMANDS: dict[str, Registered] = {}
app = typer.Typer(
    name="skill", cls=_Group, rich_markup_mode=None, pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)  # fmt: skip


def _command(
    panel: str,
    summary: str,
    example: str,
    *,
    gpu: bool = False,
    processes: bool = False,
    module: str = "",
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command.

    Args:
        gpu: it takes a GPU.
        processes: or several, with a process for each.
        module: of a long job, whose finished work is taken over where nobody has recorded it.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function)
        added: dict[str, tuple[Any, Any]] = {
            "context": (typer.Context, inspect.Parameter.empty),
            "threads": (
                Annotated[int | None, Option(min=1, help="Of torch and its libraries.")],
                None,
            ),
        }
        if processes:
            several = Option("--gpus", min=0, help="More than one: a process for each.")
            added["processes"] = (Annotated[int, several], 1)

        @functools.wraps(function)
        def run(
            context: typer.Context, threads: int | None, processes: int = 1, **options: Any
        ) -> int:
            work = functools.partial(function, **options)
            call = _Call(context.obj, threads, processes, gpu, module, options)
            return _run(work, call)

        kind = inspect.Parameter.KEYWORD_ONLY
        extra = [
            inspect.Parameter(name, kind, annotation=annotation, default=default)
            for name, (annotation, default) in added.items()
        ]
        parameters = [p.replace(kind=kind) for p in signature.parameters.values()]
        setattr(run, "__signature__", signature.replace(parameters=[*parameters, *extra]))  # noqa: B010
        run.__annotations__ = {p.name: p.annotation for p in (*parameters, *extra)}
        name = function.__name__
        COMMANDS[name] = Registered(panel, summary, gpu, processes)
        epilog = f"\b\nExample:\n  skill {name} {example}"
        app.command(name, cls=_Command, epilog=epilog, short_help=summary)(run)
        return function

    return register


@dataclass(frozen=True)
class _Call:
    """How a command was called: its words and options, and what it takes of the machine."""

    words: Sequence[str]
    threads: int | None
    processes: int
    gpu: bool
    module: str
    options: dict[str, Any]


def _run(work: Callable[[], None], call: _Call) -> int:
    """A command's work, in this process or in one for each of its GPUs."""
    rank = os.environ.get("LOCAL_RANK")
    _check_inputs(call.options)
    if call.threads and rank is None:
        launch.set_threads(call.threads)
    launch.keep_freed_memory()
    signals.exit_on_signals()
    locks.exit_with_parent()
    if rank is not None:
        return _work(work, call.gpu, first=rank == "0")
    scratch: Path | None = call.options.get("scratch")
    output: Path | None = call.options.get("output")
    with ExitStack() as stack:
        if scratch is not None:
            stack.enter_context(locks.scratch_of_one_job(scratch))
        job = ""
        if call.module and scratch is not None and output is not None and locks.RUN in os.environ:
            job = finished.identity(call.module, call.options)
            if finished.take_over(scratch, output, job):
                return 0
        stack.enter_context(gpus.claim_gpus(call.processes if call.gpu else 0))
        if call.processes > 1:
            code = launch.run_processes(call.words, call.processes, call.threads)
        else:
            code = _work(work, call.gpu, first=True)
        if job and code == 0 and scratch is not None and output is not None:
            finished.keep(scratch, output, job)
    return code


def _check_inputs(options: Mapping[str, Any]) -> None:
    """Refuse paths to read where there is nothing, or what has no end."""
    for name, value in options.items():
        for path in value if isinstance(value, list) else [value]:
            if not isinstance(path, Path) or name in ("output", "scratch", "folder"):
                continue
            if not path.exists():
                raise SkillError(f"{path}: there is no such file: check the path")
            if not path.is_file() and not path.is_dir():
                raise SkillError(f"{path}: is a pipe or a device: give a file")


def _work(work: Callable[[], None], gpu: bool, *, first: bool) -> int:
    if gpu:
        from skill.training.precision import exact_products

        exact_products()
    try:
        work()
    except RuntimeError:
        if first or not signals.received():
            raise
        return 128 + signals.received()  # the first process has saved the state and left
    return 0


def _job(model: type[Model], text: str, option: str = "--params") -> Model:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SkillError(f"{option}: no valid JSON: {error}") from None
    return parse(model, value, option)


def _version(shown: bool) -> None:
    if shown:
        print(f"skill {version('skill')}")
        raise typer.Exit


@contextmanager
def _tables(paths: Sequence[Path]) -> Iterator[None]:
    """Tables of other columns or values than expected are bad input, and named."""
    try:
        yield
    except (KeyError, IndexError, ValueError) as error:
        names = ", ".join(map(str, paths[:3])) + (" and others" if len(paths) > 3 else "")
        what = f"column {error} is missing" if isinstance(error, KeyError) else str(error)
        raise SkillError(f"{names}: not the tables that it is made from: {what}") from error


@app.callback()
def _options(
    version: Annotated[bool, Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Options of the command itself."""


@_command(
    STUDENT,
    "run a trained head on audio files",
    "sid recording.wav --head results/superb/skill-wavlm/sid.safetensors "
    "--encoder results/stage2/skill-wavlm.safetensors",
)
def predict(
    task: Annotated[str, Argument(help="A SUPERB task: pr, asr, ks, sid, ...")],
    files: Annotated[list[Path], Argument(help="Recordings, of any rate and format.")],
    head: Annotated[Path, Option(metavar="FILE", help="results/superb/UPSTREAM/TASK.safetensors")],
    encoder: Upstream = None,
    as_json: Annotated[bool, Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Run a trained SUPERB head on audio files and print what it predicts."""
    from skill.superb.predict import run

    run(task, files, head, encoder, as_json)


@_command(STUDENT, "write a student in other formats", "skill-wavlm folder --onnx")
def export(
    student: Annotated[str, Argument(help="A name under results/stage2/, or a file.")],
    folder: Annotated[Path, Argument(help="Made new; holds all files of the export.")],
    onnx: Annotated[bool, Option("--onnx", help="ONNX models, float32 and int8.")] = False,
    s3prl: Annotated[bool, Option("--s3prl", help="A folder that s3prl loads.")] = False,
    dphubert: Annotated[bool, Option("--dphubert", help="DPHuBERT's layout.")] = False,
    states: Annotated[Literal["all", "last"], Option(help="What ONNX models return.")] = "all",
) -> None:
    """Write a student as a folder for `transformers` or, if so asked, in other formats."""
    from skill.encoder.formats.export import run
    from skill.paper import model_card

    chosen = {"onnx": onnx, "s3prl": s3prl, "dphubert": dphubert}
    forms = [form for form, is_asked_for in chosen.items() if is_asked_for]
    texts = {} if forms else {"README.md": model_card.text(student)}
    run(student, folder, forms, states, texts)


@_command(STUDENT, "CKA and clusters of any layers", "states.safetensors")
def analyze(
    files: Annotated[list[Path], Argument(help="Layer states of any model, or a table of CKA.")],
    similarity: Annotated[str, Option(metavar="JSON", help="Keys of `similarity`.")] = "{}",
    clustering: Annotated[
        str, Option(metavar="JSON", help="Keys of `clustering`.")
    ] = '{"num_clusters": "auto"}',
    output: Annotated[
        Path | None, Option(metavar="STEM", help="Of the files that are written; default: FILE's.")
    ] = None,
) -> None:
    """Compare the layers in files of states by CKA, cluster them, and draw both.

    Several files of the same frames, of several models, are compared with each other. A .csv is a
    table of CKA, which is clustered. The files' format is in docs/alone.md.
    """
    from skill.paper.analyze import analyze as run

    compare = _job(params.Similarity, similarity, "--similarity")
    run(files, compare, _job(params.Clustering, clustering, "--clustering"), output)


@_command(PLAN, "check parameters and machine", "params.yaml")
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


@_command(PLAN, "estimate jobs, hours and disk", "presets/paper.yaml")
def plan(
    file: Annotated[Path, Argument(help="A file of parameters.")] = Path("params.yaml"),
) -> None:
    """Estimate jobs, compute hours, disk and downloads of every phase that is left to run."""
    from skill.workflow.costs import run

    run(file)


@_command(PLAN, "compare a run with the expected one", "params.yaml")
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


@_command(PLAN, "make a table of expected values", "run1 run2 --output presets/expected/sample.csv")
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


@_command(
    STEPS,
    "prepare a corpus and its manifest",
    'beeps --params \'{"kind": "synthetic"}\' --output beeps.csv',
)
def corpus(name: str, job: Job, output: Output) -> None:
    """Fetch a corpus; write its manifest, and converted audio (.flac) beside it."""
    from skill.data.corpora.prepare import run

    settings = _job(params.Corpus, job)
    run(name, settings, output, output.with_suffix(".flac") if settings.stored else None)


@_command(
    STEPS,
    "fetch or convert a teacher",
    'mine --params \'{"source": "folder"}\' --output mine.safetensors',
)
def teacher(name: str, job: Job, output: File) -> None:
    """Fetch a teacher from the model hub, or convert its file or folder."""
    from skill.teachers.fetch import run_teacher

    run_teacher(name, _job(params.Teacher, job), output)


@_command(STEPS, "pretrain a small teacher", "wavlm-sample", module="skill.teachers.pretraining")
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
        settings = _job(jobs.PretrainingJob, job)
    else:
        settings = jobs.PretrainingJob.of(load("params.yaml"), name)
    found = manifests or [Path(f"results/corpora/{n}.csv") for n in settings.unlabelled.corpora]
    path = output or Path(f"data/teachers/{name}.safetensors")
    run(name, settings, found, path, scratch or Path(f"scratch/teachers/{name}"))


@_command(
    STEPS,
    "hidden states on calibration audio",
    "--params JSON --teacher t.safetensors --manifests queen.csv --output states.safetensors",
    gpu=True,
)
def activations(job: Job, teacher: File, manifests: Files, output: File) -> None:
    """Write a teacher's hidden states on the calibration set."""
    from skill.similarity.activations import run

    run(teacher, manifests, _job(jobs.ActivationsJob, job), output)


@_command(
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
    from skill.similarity import matrix_step

    section = _job(params.Similarity, job)
    if activations:
        matrix_step.run(activations, section, output)
    elif teachers and manifests and calibration:
        audio = _job(jobs.ActivationsJob, calibration, "--calibration")
        matrix_step.run_stream(teachers, manifests, audio, section, output)
    else:
        raise SkillError("give --activations, or --teachers, --manifests and --calibration")


@_command(
    STEPS,
    "cluster similar layers",
    "--params '{\"num_clusters\": 4}' --similarity cka.csv --output clusters.json",
)
def cluster(job: Job, similarity: File, output: Output) -> None:
    """Cluster the layers of a table of CKA.

    Writes the clusters (.json), the dendrogram's table (.csv) and the silhouettes (-criterion.csv).
    """
    from skill.similarity.clustering_step import run

    criterion = output.with_name(f"{output.stem}-criterion.csv")
    run(similarity, _job(params.Clustering, job), output, output.with_suffix(".csv"), criterion)


@_command(
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
    from skill.distillation.stages import stage1 as run

    curve, summary = output.with_suffix(".csv"), output.with_suffix(".json")
    settings = _job(jobs.Stage1Job, job)
    run(name, settings, teachers, manifests, clustering, output, curve, summary, scratch)


@_command(
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
    from skill.distillation.stages import stage2 as run

    curve, summary = output.with_suffix(".csv"), output.with_suffix(".json")
    settings = _job(jobs.Stage2Job, job)
    run(name, settings, student, teachers, manifests, clustering, output, curve, summary, scratch)


@_command(
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
    settings = _job(jobs.TaskJob, job)
    run(upstream, task, settings, encoder, manifests, output, items, head, scratch)


@_command(
    STEPS,
    "parameters, MACs and speed",
    "s --encoder results/stage2/s.safetensors --output size.json",
    gpu=True,
)
def profile(upstream: str, output: File, encoder: Upstream = None) -> None:
    """Measure parameters, multiply-accumulates and real-time factor of an upstream."""
    from skill.superb.profile import run

    run(upstream, encoder, output)


@_command(
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

    run(student, teachers, summary, manifests, _job(jobs.ActivationsJob, job), output)


@_command(
    TABLES,
    "all results in one table",
    "--params JSON --results results/superb/*/*.json --output results/superb/scores.json",
)
def scores(job: Job, results: Files, output: Output) -> None:
    """Collect all results in one table (.csv) and its summary (.json)."""
    from skill.superb.scores import run

    run(results, _job(jobs.ScoresJob, job), output, output.with_suffix(".csv"))


@_command(
    TABLES,
    "a table, or the data of a figure",
    "results --params JSON --inputs results/superb/scores.csv --output results.csv",
)
def table(name: str, job: Job, inputs: Files, output: Output) -> None:
    """Make one of the paper's tables, or the small table that a figure is drawn from."""
    from skill.paper.tables import run

    settings = _job(jobs.PaperJob, job)
    with _tables(inputs):
        run(name, settings, inputs, output)


@_command(
    TABLES,
    "draw a figure from its table",
    "layers --table results/paper/layers.csv --output layers.pdf",
)
def figure(name: str, table: File, output: Output) -> None:
    """Draw a figure from its table, as .pdf and .png."""
    from skill.paper.figures import draw

    with _tables([table]):
        draw(name, table, output.with_suffix(".pdf"), output.with_suffix(".png"))


@_command(
    TABLES,
    "clusters over resampled audio",
    "--params JSON --activations states.safetensors --output s-stability.csv",
)
def stability(job: Job, activations: Files, output: Output) -> None:
    """Resample the calibration utterances: how often two layers share a cluster."""
    from skill.similarity.sensitivity import run_stability

    curve = output.with_name(f"{output.stem.removesuffix('-stability')}-criterion.csv")
    run_stability(activations, _job(jobs.StudyJob, job), output, curve)


@_command(
    TABLES,
    "clusters by audio, linkage, kernel",
    "--params JSON --activations states.safetensors --output calibration.csv",
)
def sensitivity(job: Job, activations: Files, output: File) -> None:
    """Vary calibration audio, linkage and kernel: how the clusters depend on each."""
    from skill.similarity.sensitivity import run_study

    run_study(activations, _job(jobs.StudyJob, job), output)


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
    print(printable(text), file=sys.stderr)
    return code
