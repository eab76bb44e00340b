"""What a command does to its process before it works: inputs, threads, signals, GPUs, locks."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skill.training import launch, signals
from skill.utils.errors import SkillError
from skill.workflow import finished, gpus, locks


@dataclass(frozen=True)
class Call:
    """How a command was called: its words and options, and what it takes of the machine."""

    words: Sequence[str]
    threads: int | None
    processes: int
    gpu: bool
    module: str
    options: dict[str, Any]


def run(work: Callable[[], None], call: Call) -> int:
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
    """Refuse paths to read where there is nothing, and to read or write what is no file."""
    for name, value in options.items():
        for path in value if isinstance(value, list) else [value]:
            if not isinstance(path, Path):
                continue
            written = name in ("output", "scratch", "folder")
            if not path.exists() and written:
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
