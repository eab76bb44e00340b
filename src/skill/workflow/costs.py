"""What each job of a run costs, from figures and lengths of audio; `skill.workflow.plan` adds them
up.

Legend: sizes are (blocks, width) of encoders; costs are seconds of an A100 or of two CPU cores.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from skill.config.params import Corpus, Params, Student, Training
from skill.config.tasks import Task
from skill.data.corpora import archives, superb_files
from skill.data.manifest import read_manifest
from skill.utils.files import data_table
from skill.workflow import outputs
from skill.workflow.checks import known_size

FRAMES = 50  # a second
_BASE, _SMALL = (12, 768), (12, 160)
RESULTS = Path("results")
Row = dict[str, str]


@dataclass
class Job:
    """One job: what it writes, the audio it needs, and what it costs if it is not done."""

    outputs: Sequence[Path]
    gpu: float = 0.0
    """Seconds."""
    cpu: float = 0.0
    disk: float = 0.0
    """Bytes."""
    download: float = 0.0

    @property
    def done(self) -> bool:
        return all(path.exists() for path in self.outputs)


@dataclass
class Plan:
    """Jobs by phase, in the order in which they run, and what the reader has to know."""

    phases: dict[str, list[Job]]
    notes: list[str] = field(default_factory=list)


def make(params: Params) -> Plan:
    """The plan of `params` in the working directory.

    Raises:
        SkillError: a table of figures or a manifest is missing or damaged.
    """
    return _Planner(params).plan()


class _Planner:
    def __init__(self, params: Params) -> None:
        self.p, self.table = params, data_table("corpora")
        self.cost = {row["name"]: float(row["value"]) for row in data_table("costs")}
        self.sizes = {n: known_size(t) or _BASE for n, t in params.teachers.items()}
        self.tasks = outputs.tasks(params)
        self.notes: list[str] = []
        self.fetched: set[str] = set()
        self.audio = {name: self._audio(name, corpus) for name, corpus in params.corpora.items()}

    def plan(self) -> Plan:
        students, matrices = self.p.students, outputs.matrices(self.p)
        phases = {
            "corpora": [self._corpus(n, c) for n, c in self.p.corpora.items()],
            "teachers": [self._teacher(name) for name in self.p.teachers],
            "activations": [self._activations(name) for name in self.p.teachers],
            "similarity": [self._similarity(name, names) for name, (names, _) in matrices.items()],
            "clustering": [
                Job(_files("clustering", s.name, "json", "csv"))
                for s in outputs.clustered_students(self.p)
            ],
            "stage1": [self._training("stage1", s, s.stage1) for s in students.values()],
            "stage2": [self._training("stage2", s, s.stage2) for s in students.values()],
            "superb": self._superb(),
            "paper": self._paper(),
        }
        listed = superb_files.missing(
            (n, corpus) for n, t in self.tasks.items() for corpus in t.corpora
        )
        return Plan(phases, [*self.notes, *listed])

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
        return seconds, seconds / utterances if utterances else self.cost["utterance-seconds"]

    def _corpus(self, name: str, corpus: Corpus) -> Job:
        kinds = ("csv", "flac") if corpus.stored else ("csv",)
        job = Job(_files("corpora", name, *kinds))
        if corpus.stored:
            job.disk = self.audio[name][0] / 3600 * self.cost["flac-bytes"]
            job.download = sum(float(row["bytes"] or 0) for row in self._rows(corpus))
            return job
        root = os.environ.get("SKILL_CORPORA")
        parts = {row["part"] for row in self._rows(corpus)}
        wanted = [a for a in archives.listed() if a.kind == corpus.kind and a.part in parts]
        absent = [a for a in wanted if not root or not (Path(root) / a.folder).is_dir()]
        for archive in absent:
            if archive.folder not in self.fetched:  # by another corpus of the same kind
                job.download += archive.remote.size
                job.disk += archive.remote.size
        self.fetched |= {archive.folder for archive in absent}
        note = "SKILL_CORPORA is not set: it says where audio lies, and where what is fetched goes"
        if not root and not job.done and note not in self.notes:
            self.notes.insert(0, note)
        if not wanted and not job.done:
            source = " ".join(sorted({row["source"] for row in self._rows(corpus)}))
            self.notes.append(
                f"corpora.{name}: has to be put below SKILL_CORPORA by hand: {source}"
            )
        return job

    def _teacher(self, name: str) -> Job:
        teacher, size = self.p.teachers[name], parameters(*self.sizes[name])
        job = Job(_files("teachers", name, "safetensors"), disk=4 * size)
        if teacher.hub:
            job.download = 4 * size
            job.disk += 4 * size  # the hub's cache
        if teacher.retrain:
            for stage in self.p.pretraining[name].rounds:
                seconds = stage.steps * stage.batch_seconds
                job.gpu += seconds / self._rate("gpu-stage2", self.sizes[name])
                job.cpu += seconds / self._training_rate(stage, self.sizes[name])
        return job

    def _rate(self, figure: str, size: tuple[int, int]) -> float:
        """A figure of Base size at another size, between and beyond the two measured ones."""
        small = self.cost["cpu-train-small-float32"] / self.cost["cpu-train-float32"]
        share = math.log(_work(size) / _work(_BASE)) / math.log(_work(_SMALL) / _work(_BASE))
        return self.cost[figure] * small**share

    def _training_rate(self, stage: Training, size: tuple[int, int]) -> float:
        kind = "float32" if stage.precision == "float32" else "bf16"
        return self._rate(f"cpu-train-{kind}", size)

    def _activations(self, name: str) -> Job:
        settings, (blocks, width) = self.p.activations, self.sizes[name]
        seconds = min(settings.seconds, sum(self.audio[n][0] for n in self.p.unlabelled.corpora))
        frames = min(settings.max_frames, FRAMES * seconds)
        return Job(
            _files("activations", name, "safetensors"),
            gpu=seconds / self._rate("gpu-forward", self.sizes[name]),
            cpu=seconds / self._rate("cpu-forward-float32", self.sizes[name]),
            disk=2 * (blocks + 1) * width * frames,
        )

    def _similarity(self, name: str, teachers: Sequence[str]) -> Job:
        work = sum((self.sizes[n][0] + 1) * self.sizes[n][1] for n in teachers) / (13 * 768)
        scale = work**2 * self.p.activations.max_frames / 10_000
        return Job(
            _files("similarity", name, "csv"),
            gpu=scale * self.cost["gpu-similarity"],
            cpu=scale * self.cost["cpu-similarity"],
        )

    def _training(self, phase: str, student: Student, stage: Training) -> Job:
        job = Job(_files(phase, student.name, "safetensors", "csv", "json"))
        left = 1 - (student.sparsity or 0)
        for number, name in enumerate(student.teachers):
            size, seconds = self.sizes[name], stage.steps * stage.batch_seconds
            if number == 0:
                job.gpu += seconds / self._rate(f"gpu-{phase}", size)
                job.cpu += seconds / self._training_rate(stage, size)
                job.disk = 4 * left * parameters(*size)
            else:  # one more forward pass
                job.gpu += seconds / self._rate("gpu-forward", size)
                job.cpu += seconds / self._rate("cpu-forward-bf16", size)
        return job

    def _superb(self) -> list[Job]:
        jobs = [Job(_files("superb", "scores", "json", "csv"))]
        for upstream in outputs.upstreams(self.p):
            student = self.p.students.get(upstream)
            size = self.sizes.get(student.teachers[0] if student else upstream)  # fbank has none
            left = 1 - (student.sparsity or 0) if student else 1.0
            jobs.append(Job(_files("superb", f"{upstream}/size", "json")))
            for name, task in self.tasks.items():
                job = Job(_files("superb", f"{upstream}/{name}", "json", "csv", "safetensors"))
                job.cpu = self._heads(task)
                job.gpu = self.cost["gpu-head"] * job.cpu
                if size is not None:
                    seconds = self._passes(task, size)
                    kind = "cpu-forward-bf16" if task.precision == "bf16" else "cpu-forward-float32"
                    job.gpu += left * seconds / self._rate("gpu-forward", size)
                    job.cpu += left * seconds / self._rate(kind, size)
                jobs.append(job)
        return jobs

    def _heads(self, task: Task) -> float:
        """Seconds of two CPU cores for training the heads, one for each learning rate."""
        steps = task.folds * len(task.learning_rates) * task.steps * task.accumulate
        if task.kind == "labels":  # they see means over time only
            return steps * self.cost["cpu-head-step"]
        seconds = min(max(self.audio[name][1] for name in task.corpora), task.crop_seconds)
        return steps * task.batch * seconds / self.cost["cpu-head"]

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
        held = min(1.0, task.cache_gib * 2**30 / needed) if needed else 1.0
        seen = task.steps * task.batch * task.accumulate * mean
        looks = task.steps // task.eval_every if task.eval_every else 1
        dev = min(0.1 * audio, task.dev_seconds)
        again = max(0.0, seen - train) + max(0, looks - 1) * dev
        return task.folds * (min(seen, train) + dev + (1 - held) * again) + rest

    def _paper(self) -> list[Job]:
        """Tables and figures, as workflow/rules/paper.smk makes them."""
        figures = outputs.figures(self.p)
        jobs = [Job([Path(table)]) for table in figures["regression"]]
        for name in [*outputs.tables(self.p), "comparisons", *figures]:
            jobs.append(Job(_files("paper", name, "csv")))
        return jobs + [Job(_files("paper", name, "pdf")) for name in figures]


def parameters(blocks: int, width: int) -> float:
    """Parameters of an encoder of the wav2vec 2.0 family, within a few percent."""
    channels = min(512, width)
    return 12 * blocks * width**2 + 16 * channels**2 + 8 * width**2 + channels * width


def _work(size: tuple[int, int]) -> float:
    return size[0] * size[1] ** 2


def _files(phase: str, name: str, *kinds: str) -> list[Path]:
    return [RESULTS / phase / f"{name}.{kind}" for kind in kinds]
