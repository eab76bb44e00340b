"""What a run will cost before it is paid for: jobs, hours, disk and download of every phase.

Which jobs there are, and which of them are done and current, Snakemake says itself. Hours come from
the figures of `data/costs.csv`, each with its source, and from lengths of audio: of the manifests
that are there, else of `data/corpora.csv`. They are estimates, right within a factor of two at
best: other machines, batches and library versions differ. `GPU-hours` are those of one A100,
`CPU-hours` those of a machine with two cores. Imports no torch.

Legend: sizes are (blocks, width) of encoders; costs are seconds of an A100 or of two CPU cores.
"""

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from skill.config.params import Corpus, Params
from skill.config.tasks import Task
from skill.config.training import Training
from skill.data.corpora import archives, superb_files
from skill.data.manifest import read_manifest
from skill.utils.errors import SkillError
from skill.utils.files import checkout_path, data_table
from skill.workflow import outputs
from skill.workflow.checks import known_size, load_checked

FRAMES = 50  # a second
_BASE, _SMALL = (12, 768), (12, 160)
RESULTS = Path("results")
Row = dict[str, str]


@dataclass(frozen=True)
class Job:
    """One job of the workflow: its rule, its outputs, and whether they are there and current."""

    rule: str
    outputs: tuple[str, ...]
    done: bool

    @property
    def phase(self) -> str:
        return Path(self.outputs[0]).parts[1]

    @property
    def name(self) -> str:
        """Of a student, teacher, corpus or matrix: the first output's."""
        return Path(self.outputs[0]).stem


@dataclass
class Cost:
    """What one job, or several, take if they are not done."""

    gpu: float = 0.0
    """Seconds."""
    cpu: float = 0.0
    disk: float = 0.0
    """Bytes."""
    download: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.gpu + other.gpu, self.cpu + other.cpu,
            self.disk + other.disk, self.download + other.download,
        )  # fmt: skip


def jobs_of_the_workflow(file: Path) -> list[Job]:
    """All jobs of a run with the parameters in `file`, in the working directory.

    Raises:
        SkillError: Snakemake is not installed here, or refuses the parameters.
    """
    command = [
        sys.executable, "-m", "snakemake", "--summary", "--cores", "1", "--snakefile",
        str(checkout_path("Snakefile").resolve()), "--directory", ".", "--config", f"params={file}",
    ]  # fmt: skip
    # What a task still needs below SKILL_CORPORA stops a run; here it becomes a note.
    environment = {k: v for k, v in os.environ.items() if k != "SKILL_CORPORA"}
    process = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    head, *lines = process.stdout.splitlines() or [""]
    if process.returncode or not head.startswith("output_file"):
        last = (process.stderr.strip() or "it printed nothing").splitlines()[-1]
        raise SkillError(f"the jobs cannot be listed, Snakemake says: {last}")
    groups: dict[tuple[str, str], list[tuple[str, bool]]] = {}
    for line in lines:
        output, _, rule, *_, action = line.split("\t")
        stem = output.rpartition(".")[0].removesuffix("-criterion")
        groups.setdefault((rule, stem), []).append((output, action == "no update"))
    return [
        Job(rule, tuple(output for output, _ in files), all(current for _, current in files))
        for (rule, _), files in groups.items()
    ]


class Estimator:
    """Costs of jobs with one file's parameters.

    Raises:
        SkillError: a table of figures or a manifest is missing or damaged.
    """

    def __init__(self, params: Params) -> None:
        self.p, self.table = params, data_table("corpora")
        self.figures = {row["name"]: float(row["value"]) for row in data_table("costs")}
        self.sizes = {n: known_size(t) or _BASE for n, t in params.teachers.items()}
        self.tasks = outputs.tasks(params)
        self.notes: list[str] = []
        self.fetched: set[str] = set()
        self.audio = {name: self._audio(name, corpus) for name, corpus in params.corpora.items()}

    def cost(self, job: Job) -> Cost:
        """Of one job, whether it is done or not; little and nothing count as nothing."""
        by_rule: dict[str, Callable[[Job], Cost]] = {
            "convert_corpus": self._corpus,
            "list_corpus": self._corpus,
            "fetch_teacher": self._teacher,
            "pretrain_teacher": self._teacher,
            "record_states": self._activations,
            "compare_layers": self._similarity,
            "prune_student": self._training,
            "distil_student": self._training,
            "evaluate": self._evaluate,
        }
        return by_rule[job.rule](job) if job.rule in by_rule else Cost()

    def all_notes(self) -> list[str]:
        """What the reader has to know, of corpora and of files that tasks need."""
        pairs = ((n, corpus) for n, t in self.tasks.items() for corpus in t.corpora)
        return [*self.notes, *superb_files.missing_files(pairs)]

    def _rows(self, corpus: Corpus) -> list[Row]:
        """The table's rows that the corpus is made of."""
        rows = [row for row in self.table if row["kind"] == corpus.kind]
        if corpus.parts:
            return [row for row in rows if row["part"] in corpus.parts]
        return [row for row in rows if not row["part"].endswith(("-2", "-5"))]  # not the mini ones

    def _audio(self, name: str, corpus: Corpus) -> tuple[float, float]:
        """Seconds in all, and of an utterance on average; 0 where nobody knows."""
        manifest = RESULTS / "corpora" / f"{name}.csv"
        if manifest.exists():
            lengths = [utterance.seconds for utterance in read_manifest(manifest)]
            return sum(lengths), sum(lengths) / len(lengths)
        if corpus.kind == "synthetic":
            seconds = float(corpus.speakers * corpus.sentences)
            return seconds, 1.0
        rows = self._rows(corpus)
        seconds = 3600 * sum(float(row["hours"] or 0) for row in rows)
        utterances = sum(int(row["utterances"] or 0) for row in rows)
        if not seconds:
            self.notes.append(f"corpora.{name}: its length is not known here and counts as nothing")
        return seconds, seconds / utterances if utterances else self.figures["utterance-seconds"]

    def _corpus(self, job: Job) -> Cost:
        name, corpus, cost = job.name, self.p.corpora[job.name], Cost()
        if corpus.stored:
            cost.disk = self.audio[name][0] / 3600 * self.figures["flac-bytes"]
            cost.download = sum(float(row["bytes"] or 0) for row in self._rows(corpus))
            return cost
        root = os.environ.get("SKILL_CORPORA")
        parts = {row["part"] for row in self._rows(corpus)}
        parts_to_fetch = [
            a for a in archives.read_archives() if a.kind == corpus.kind and a.part in parts
        ]
        absent = [a for a in parts_to_fetch if not root or not (Path(root) / a.folder).is_dir()]
        for archive in absent:
            if archive.folder not in self.fetched:  # by another corpus of the same kind
                cost.download += archive.remote.size
                cost.disk += archive.remote.size
        self.fetched |= {archive.folder for archive in absent}
        note = "SKILL_CORPORA is not set: it says where audio lies, and where what is fetched goes"
        if not root and note not in self.notes:
            self.notes.insert(0, note)
        if not parts_to_fetch:
            source = " ".join(sorted({row["source"] for row in self._rows(corpus)}))
            self.notes.append(
                f"corpora.{name}: has to be put below SKILL_CORPORA by hand: {source}"
            )
        return cost

    def _teacher(self, job: Job) -> Cost:
        teacher, size = self.p.teachers[job.name], self.sizes[job.name]
        cost = Cost(disk=4 * parameters(*size))
        if teacher.hub:
            cost.download = cost.disk
            cost.disk *= 2  # the hub's cache
        if job.rule == "pretrain_teacher":
            for stage in self.p.pretraining[job.name].rounds:
                seconds = stage.steps * stage.batch_seconds
                cost.gpu += seconds / self._rate("gpu-stage2", size)
                cost.cpu += seconds / self._training_rate(stage, size)
        return cost

    def _rate(self, figure: str, size: tuple[int, int]) -> float:
        """A figure of Base size at another size, between and beyond the two measured ones."""
        small = self.figures["cpu-train-small-float32"] / self.figures["cpu-train-float32"]
        share = math.log(_work(size) / _work(_BASE)) / math.log(_work(_SMALL) / _work(_BASE))
        return self.figures[figure] * small**share

    def _training_rate(self, stage: Training, size: tuple[int, int]) -> float:
        kind = "float32" if stage.precision == "float32" else "bf16"
        return self._rate(f"cpu-train-{kind}", size)

    def _activations(self, job: Job) -> Cost:
        settings, (blocks, width) = self.p.activations, self.sizes[job.name]
        seconds = min(settings.seconds, sum(self.audio[n][0] for n in self.p.unlabelled.corpora))
        return Cost(
            gpu=seconds / self._rate("gpu-forward", (blocks, width)),
            cpu=seconds / self._rate("cpu-forward-float32", (blocks, width)),
            disk=2 * (blocks + 1) * width * min(settings.max_frames, FRAMES * seconds),
        )

    def _similarity(self, job: Job) -> Cost:
        teachers = outputs.matrices(self.p)[job.name][0]
        work = sum((self.sizes[n][0] + 1) * self.sizes[n][1] for n in teachers) / (13 * 768)
        scale = work**2 * self.p.activations.max_frames / 10_000
        return Cost(scale * self.figures["gpu-similarity"], scale * self.figures["cpu-similarity"])

    def _training(self, job: Job) -> Cost:
        student = self.p.students[job.name]
        stage: Training = getattr(student, job.phase)
        seconds, cost = stage.steps * stage.batch_seconds, Cost()
        for number, name in enumerate(student.teachers):
            size = self.sizes[name]
            if number == 0:
                cost.gpu += seconds / self._rate(f"gpu-{job.phase}", size)
                cost.cpu += seconds / self._training_rate(stage, size)
                cost.disk = 4 * (1 - (student.sparsity or 0)) * parameters(*size)
            else:  # one more forward pass
                cost.gpu += seconds / self._rate("gpu-forward", size)
                cost.cpu += seconds / self._rate("cpu-forward-bf16", size)
        return cost

    def _evaluate(self, job: Job) -> Cost:
        upstream, task = Path(job.outputs[0]).parts[2], self.tasks[job.name]
        student = self.p.students.get(upstream)
        size = self.sizes.get(student.teachers[0] if student else upstream)  # fbank has none
        left = 1 - (student.sparsity or 0) if student else 1.0
        cost = Cost(cpu=self._heads(task))
        cost.gpu = self.figures["gpu-head"] * cost.cpu
        if size is not None:
            seconds = self._passes(task, size)
            kind = "cpu-forward-bf16" if task.precision == "bf16" else "cpu-forward-float32"
            cost.gpu += left * seconds / self._rate("gpu-forward", size)
            cost.cpu += left * seconds / self._rate(kind, size)
        return cost

    def _heads(self, task: Task) -> float:
        """Seconds of two CPU cores for training the heads, one for each seed and learning rate."""
        heads = task.folds * task.head_seeds * len(task.learning_rates)
        steps = heads * task.steps * task.accumulate
        if task.kind == "labels":  # they see means over time only
            return steps * self.figures["cpu-head-step"]
        seconds = min(max(self.audio[name][1] for name in task.corpora), task.crop_seconds)
        return steps * task.batch * seconds / self.figures["cpu-head"]

    def _passes(self, task: Task, size: tuple[int, int]) -> float:
        """Seconds of audio that pass through the upstream: what the cache holds passes once."""
        audio = sum(self.audio[name][0] for name in task.corpora)
        mean = max((self.audio[name][1] for name in task.corpora), default=0.0)
        train, rest = min(0.8 * audio, task.train_seconds), min(0.1 * audio, task.test_seconds)
        mean = min(mean, task.crop_seconds)
        frame = (size[0] + 1) * size[1]
        if task.kind == "labels":  # a mean of four bytes for each excerpt
            needed = 4 * frame * task.crops * train / mean if mean else 0
        else:
            needed = 2 * frame * FRAMES * train
        cached = min(1.0, task.cache_gib * 2**30 / needed) if needed else 1.0
        presented = task.steps * task.batch * task.accumulate * mean
        looks = task.steps // task.eval_every if task.eval_every else 1
        dev = min(0.1 * audio, task.dev_seconds)
        again = max(0.0, presented - train) + max(0, looks - 1) * dev
        return task.folds * (min(presented, train) + dev + (1 - cached) * again) + rest


def parameters(blocks: int, width: int) -> float:
    """Parameters of an encoder of the wav2vec 2.0 family, within a few percent."""
    channels = min(512, width)
    return 12 * blocks * width**2 + 16 * channels**2 + 8 * width**2 + channels * width


def _work(size: tuple[int, int]) -> float:
    return size[0] * size[1] ** 2


_HEAD = ("phase", "jobs", "done", "GPU-hours", "CPU-hours", "disk GB", "download GB")


def show(jobs: Iterable[Job], estimator: Estimator) -> str:
    """The plan as a table: all jobs and done ones; costs are of what is left."""
    phases: dict[str, list[Job]] = {}
    for job in jobs:
        phases.setdefault(job.phase, []).append(job)
    order = {phase: place for place, phase in enumerate(outputs.PHASES)}
    lines: list[tuple[str, ...]] = [_HEAD]
    total, jobs_in_all, done_in_all = Cost(), 0, 0
    for phase in sorted(phases, key=order.__getitem__):
        done = sum(job.done for job in phases[phase])
        cost = sum((estimator.cost(job) for job in phases[phase] if not job.done), Cost())
        lines.append(_line(phase, len(phases[phase]), done, cost))
        jobs_in_all, done_in_all = jobs_in_all + len(phases[phase]), done_in_all + done
        total += cost
    lines.append(_line("all", jobs_in_all, done_in_all, total))
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    text = [
        line[0].ljust(widths[0])
        + "".join("  " + cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))
        for line in lines
    ]
    return "\n".join([*text, *(f"note: {note}" for note in estimator.all_notes())])


def _line(name: str, jobs: int, done: int, cost: Cost) -> tuple[str, ...]:
    figures = (cost.gpu / 3600, cost.cpu / 3600, cost.disk / 1e9, cost.download / 1e9)
    return (name, str(jobs), str(done), *(f"{figure:.2f}" for figure in figures))


def run(file: Path) -> None:
    """The command `plan`."""
    params = load_checked(file)
    print(show(jobs_of_the_workflow(file), Estimator(params)))
    print(
        "GPU-hours are those of an A100; without a GPU it is the CPU-hours, of two cores.\n"
        "Estimates, right within a factor of two at best: data/costs.csv says what each rests on.\n"
        "Done is what is there and current; costs are of what is left to do."
    )
