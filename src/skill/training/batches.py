"""The audio of one training: this process's micro-batches of each step, and held-out ones."""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from skill.config.training import Training
from skill.data.batches import Batch, Batches, BatchPlan
from skill.data.loader import Loader, first_batches
from skill.data.manifest import Utterance
from skill.training.distributed import World

_HELD_OUT_BATCHES = 4
_GPU_READERS = 4  # one reads 3,200 seconds of FLAC per second (docs/benchmarks), a GPU needs more


class ProcessShare:
    """The micro-batches of one process: every R-th of a step, or the whole step where R is 1.

    Its step 0 is step `first_data_step` of the order.
    """

    def __init__(self, batches: Batches, world: World, first_data_step: int = 0) -> None:
        self.batches, self.world, self.utterances = batches, world, batches.utterances
        self.first_data_step = first_data_step

    def at(self, step: int) -> list[BatchPlan]:
        """The micro-batches of `step` that this process computes."""
        return self.batches.at(self.first_data_step + step)[self.world.rank :: self.world.size]


@dataclass(frozen=True)
class TrainingAudio:
    """`steps` gives (step, micro-batches) from a first step on; `held_out` never changes.

    `prepare` is applied to each micro-batch after it was read.
    """

    share: ProcessShare
    held_out: list[Batch]
    prepare: Callable[[Batch], Batch]
    workers: int

    def steps(self, first: int) -> Iterator[tuple[int, list[Batch]]]:
        """Read ahead without end."""
        with Loader(self.share, first, self.workers) as loader:
            for step, batches in loader:
                yield step, [self.prepare(batch) for batch in batches]


def training_audio(
    label: str,
    utterances: Mapping[str, list[Utterance]],
    training: Training,
    seed: int,
    world: World,
    *,
    prepare: Callable[[Batch], Batch] | None = None,
    first_data_step: int = 0,
    held_out_batches: int = _HELD_OUT_BATCHES,
) -> TrainingAudio:
    """Batches of the splits "train" and "dev", as `training` says.

    Args:
        seed: of the order, which begins at its step `first_data_step`.
        prepare: what is made of a micro-batch; None moves it to the process's device.

    Raises:
        SkillError: no utterances, or more than 1 % of them cannot be read.
    """

    def move(batch: Batch) -> Batch:
        return batch.to(world.device)

    batches = Batches(
        utterances["train"],
        training.batch_seconds,
        seed,
        fixed_order=training.fixed_order,
        micro_seconds=training.micro_seconds,
    )
    if len(batches.at(0)) < world.size and world.is_main:
        print(
            f"{label}: the first step has {len(batches.at(0))} micro-batches for {world.size} "
            "processes; a smaller micro_seconds, or a larger batch_seconds, gives all of them work",
            file=sys.stderr,
            flush=True,
        )
    prepare = prepare or move
    held_out = Batches(utterances["dev"], training.micro_seconds, 0)
    return TrainingAudio(
        ProcessShare(batches, world, first_data_step),
        [prepare(batch) for batch in first_batches(held_out, held_out_batches)],
        prepare,
        workers=1 if world.device == "cpu" else _GPU_READERS,
    )
