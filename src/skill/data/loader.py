"""Reading ahead: batches decoded by a few threads while the model works.

Unreadable utterances are reported once and left out; too many of them are an error.

Legend: B utterances, S samples.
"""

import sys
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Protocol

from skill.data import audio
from skill.data.batches import Batch, Batches, BatchPlan, collate
from skill.data.manifest import Utterance
from skill.utils.errors import SkillError

_BAD_SHARE = 0.01


def first_batches(batches: Batches, steps: int) -> list[Batch]:
    """The micro-batches of the first `steps` steps, or of one epoch where that is less.

    Raises:
        SkillError: more than one utterance and more than 1 % of all cannot be read, or none can.
    """
    with Loader(batches, workers=0) as loader:
        return [batch for _, parts in islice(loader, min(steps, len(batches))) for batch in parts]


class Plans(Protocol):
    """What is to be read at a step: `Batches`, or one process's share of them."""

    utterances: list[Utterance]

    def at(self, step: int) -> list[BatchPlan]:
        """The micro-batches of step `step`."""


class Loader:
    """Iterates over (step, micro-batches) from `first_step` on, without end.

    `workers` threads (decoding releases the interpreter) keep at most `2 · workers` steps ready;
    with 0 workers each step is read when it is asked for. A step whose utterances all turned out to
    be unreadable is an empty list. Use it as a context manager, so that its threads end.

    Raises:
        SkillError: more than one utterance and more than 1 % of all cannot be read, or none can.
    """

    def __init__(self, batches: Plans, first_step: int = 0, workers: int = 2) -> None:
        self.batches, self.first_step, self.workers = batches, first_step, workers
        self._bad: dict[str, str] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(workers) if workers else None

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[tuple[int, list[Batch]]]:
        step = self.first_step
        if self._pool is None:
            while True:
                yield step, self._load(self.batches.at(step))
                step += 1
        waiting: deque[Future[list[Batch]]] = deque()
        while True:
            while len(waiting) < 2 * self.workers:
                plans = self.batches.at(step + len(waiting))
                waiting.append(self._pool.submit(self._load, plans))
            yield step, waiting.popleft().result()
            step += 1

    def _load(self, plans: list[BatchPlan]) -> list[Batch]:
        loaded = []
        for plan in plans:
            try:
                loaded.append(collate(plan))
            except SkillError:
                readable = self._readable(plan)
                if readable.utterances:
                    loaded.append(collate(readable))
        return loaded

    def _readable(self, plan: BatchPlan) -> BatchPlan:
        """`plan` without what cannot be read."""
        readable = []
        for utterance, start, length in zip(
            plan.utterances, plan.starts, plan.lengths(), strict=True
        ):
            try:
                audio.read_segment(utterance, start, length)
                readable.append((utterance, start))
            except SkillError as error:
                self._report(utterance, str(error))
        return BatchPlan(tuple(u for u, _ in readable), tuple(s for _, s in readable), plan.samples)

    def _report(self, utterance: Utterance, problem: str) -> None:
        with self._lock:
            if utterance.id in self._bad:
                return
            self._bad[utterance.id] = problem
            bad, total = len(self._bad), len(self.batches.utterances)
        print(f"left out: {problem}", file=sys.stderr, flush=True)
        if bad > max(1, _BAD_SHARE * total) or bad == total:
            raise SkillError(f"{bad} of {total} utterances cannot be read; the last: {problem}")
