"""One run of a stage: teachers, this process's share of the audio, the loss on held-out audio."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as shown
from typing import Any

import torch
import torch.distributed as dist

from skill.config.jobs import Stage1Job, Stage2Job
from skill.config.methods import Method
from skill.data.batches import Batches, MicroBatch
from skill.data.loader import Loaded, Loader, first_batches
from skill.data.manifest import usable
from skill.distillation.distiller import Distillation
from skill.distillation.targets import Target, build_targets
from skill.encoder import SpeechEncoder
from skill.encoder.checkpoint import load_encoder
from skill.training.loop import Micro, Outcome, Reshape, train
from skill.training.precision import autocast
from skill.utils.errors import SkillError
from skill.utils.files import canonical_json, read_json, sha256
from skill.utils.provenance import fingerprint

_VALIDATION_BATCHES = 4
_GPU_READERS = 4  # one reads 3,200 seconds of FLAC per second (docs/benchmarks), a GPU hears more


@dataclass(frozen=True)
class World:
    """This process among those of `torchrun`."""

    rank: int
    size: int
    device: str

    @classmethod
    def start(cls) -> "World":
        """Join the other processes, on a GPU each where there are any."""
        cuda = torch.cuda.is_available()
        if "LOCAL_RANK" not in os.environ:
            return cls(0, 1, "cuda" if cuda else "cpu")
        device = f"cuda:{os.environ['LOCAL_RANK']}" if cuda else "cpu"
        if cuda:  # where NCCL looks for the tensors of this process
            torch.cuda.set_device(device)
        if not dist.is_initialized():
            dist.init_process_group("nccl" if cuda else "gloo")
        return cls(dist.get_rank(), dist.get_world_size(), device)

    @property
    def writes(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0


class _Share:
    """The micro-batches of this process: every R-th of a step, or the whole step where R is 1.

    Step 0 is the one after `heard` others.
    """

    def __init__(self, batches: Batches, world: World, heard: int) -> None:
        self.whole, self.world, self.utterances = batches, world, batches.utterances
        self.heard = heard

    def at(self, step: int) -> list[MicroBatch]:
        return self.whole.at(self.heard + step)[self.world.rank :: self.world.size]


def load_teachers(
    names: Sequence[str], paths: Sequence[Path], device: str
) -> dict[str, SpeechEncoder]:
    """The teachers by name, the first one first.

    Raises:
        SkillError: not a file for each name, or teachers whose frames are not of the same audio.
    """
    if len(names) != len(paths):
        raise SkillError(f"{len(paths)} files for the teachers {', '.join(names)}")
    teachers = {
        name: load_encoder(path).eval().to(device) for name, path in zip(names, paths, strict=True)
    }
    frames = {name: (t.config.conv_kernels, t.config.conv_strides) for name, t in teachers.items()}
    for name in names[1:]:
        if frames[name] != frames[names[0]]:
            raise SkillError(
                f"teacher {name}: convolutions of kernels {frames[name][0]} and strides "
                f"{frames[name][1]} make other frames than {names[0]}'s, so that a student cannot "
                "learn from both"
            )
    return teachers


def targets_of(
    method: Method, teachers: dict[str, SpeechEncoder], clustering: Path | None
) -> list[Target]:
    """What the student learns; `clustering`: the file of clusters, where the method needs one.

    Raises:
        SkillError: `clustering` holds no clusters of these teachers' layers, or as for `resolve`.
    """
    sizes = {name: (t.config.num_blocks, t.config.width) for name, t in teachers.items()}
    if clustering is None:
        return build_targets(method, sizes)
    try:
        return build_targets(method, sizes, _read_clusters(clustering))
    except SkillError as error:
        raise SkillError(f"{clustering}: {error}") from None


def _read_clusters(path: Path) -> list[list[tuple[str, int]]]:
    """The clusters of (teacher, layer) in a file that the verb `clustering` wrote."""
    content = read_json(path)
    clusters = content.get("layers") if isinstance(content, dict) else None
    if not isinstance(clusters, list) or not all(isinstance(c, list) and c for c in clusters):
        raise SkillError("no clusters of (teacher, layer) under `layers`")
    states = [state for cluster in clusters for state in cluster]
    for state in states:
        if not isinstance(state, list) or [type(part) for part in state] != [str, int]:
            raise SkillError(f"layers has {shown(state)}, which is no (teacher, layer)")
        if states.count(state) > 1:
            raise SkillError(f"layers has {shown(state)} twice")
    return [[(name, layer) for name, layer in cluster] for cluster in clusters]


def run(
    label: str,
    experiment: Distillation,
    job: Stage1Job | Stage2Job,
    manifests: Sequence[Path],
    inputs: Sequence[Path],
    scratch: Path,
    world: World,
    reshape: Reshape | None = None,
    heard: int = 0,
) -> Outcome:
    """Train `experiment` as `job` says; `inputs` are the files that a checkpoint depends on.

    The order of the audio goes on after its first `heard` steps.
    """
    stage, unlabelled = job.stage, job.unlabelled
    shortest, longest = unlabelled.min_seconds, unlabelled.max_seconds
    batches = Batches(
        usable(manifests, shortest, longest, "train"),
        stage.batch_seconds,
        job.seed,
        fixed_order=stage.fixed_order,
        micro_seconds=stage.micro_seconds,
    )
    held_out = Batches(usable(manifests, shortest, longest, "dev"), stage.micro_seconds, 0)
    held_out_micros = [
        _micro(loaded, world.device) for loaded in first_batches(held_out, _VALIDATION_BATCHES)
    ]
    share: Any = _Share(batches, world, heard)
    _check_share(label, batches, world)
    workers = 1 if world.device == "cpu" else _GPU_READERS

    def load(first: int) -> Iterator[tuple[int, list[Micro]]]:
        with Loader(share, first, workers) as loader:
            for step, loaded in loader:
                yield step, [_micro(part, world.device) for part in loaded]

    dependencies = {str(path): sha256(path) for path in inputs}
    return train(
        experiment,
        load,
        stage,
        seed=job.seed,
        folder=scratch,
        label=label,
        fingerprint=canonical_json(
            [job.model_dump(mode="json"), dependencies, fingerprint("skill.distillation.stages")]
        ),
        validate=_validation(experiment, held_out_micros, stage.precision, world.device),
        reshape=reshape,
        device=world.device.partition(":")[0],
    )


def _micro(loaded: Loaded, device: str) -> Micro:
    ids = [utterance.id for utterance in loaded.batch.utterances]
    return Micro(ids, loaded.waveforms.to(device), loaded.lengths)


def _check_share(label: str, batches: Batches, world: World) -> None:
    """Say where processes have nothing to do: micro-batches are what is dealt out to them."""
    parts = len(batches.at(0))
    if parts < world.size and world.writes:
        print(
            f"{label}: the first step has {parts} micro-batches for {world.size} processes; a "
            "smaller micro_seconds, or a larger batch_seconds, gives all of them work",
            file=sys.stderr,
            flush=True,
        )


def _validation(
    experiment: Distillation, micros: list[Micro], precision: str, device: str
) -> Callable[[], dict[str, float]]:
    """The distillation loss on held-out audio: no dropout, gates as in evaluation."""

    @torch.no_grad()
    def validate() -> dict[str, float]:
        experiment.eval()
        total = audio = 0.0
        kind = device.partition(":")[0]
        for micro in micros:
            with autocast(precision, kind):
                loss = experiment.distill(micro.waveforms)["distillation"]
            total += float(loss) * micro.audio
            audio += micro.audio
        return {"validation_loss": total / audio}

    return validate
