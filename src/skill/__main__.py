"""`python -m skill VERB …`: one of `skill.verbs`, with its threads, GPUs, signals and exit code."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from skill.command import VERBS, parser
from skill.training.signals import hangup_signals
from skill.utils.errors import SkillError
from skill.workflow import launch, locks


def _terminate(number: int, _frame: object) -> None:
    """Leave by the ordinary way, so that temporary files are removed."""
    sys.exit(128 + number)


def _run(a: argparse.Namespace, argv: Sequence[str]) -> int:
    """The verb, in this process or in one for each of its GPUs."""
    rank = os.environ.get("LOCAL_RANK")
    if a.gpus > 1 and a.verb not in launch.SHARED:
        raise SkillError(f"{a.verb} runs in one process: --gpus 1")
    signals = {signal.SIGTERM} | hangup_signals()
    if rank is not None or a.gpus > 1:
        signals.add(signal.SIGINT)
    with ExitStack() as stack:
        told = None
        if a.verb in launch.TRAININGS:  # before any thread starts
            told = stack.enter_context(launch.told_once(signals))
        if rank is not None:
            locks.end_with(os.getppid())
        elif locks.WATCHED in os.environ:
            locks.end_with(int(os.environ[locks.WATCHED]))
        if rank is None:
            stack.enter_context(launch.claimed(a.gpus if a.verb in launch.ON_GPU else 0))
            if a.gpus > 1:
                return launch.torchrun(argv, a.gpus, a.threads)
        if a.verb in launch.ON_GPU:
            from skill.training.precision import exact_products

            exact_products()
        try:
            VERBS[a.verb][0](a)
        except RuntimeError:
            if rank in (None, "0") or told is None or not told.is_set():
                raise
            return 143  # the first process has saved the state and left
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code is 0, 1 (bad input), 2 (usage), 130 or 143 (told to stop)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    a = parser().parse_args(argv)
    if a.threads and "LOCAL_RANK" not in os.environ:
        launch.set_threads(a.threads)
    launch.keep_memory()
    for number in {signal.SIGTERM} | hangup_signals():
        signal.signal(number, _terminate)
    try:
        return _run(a, argv)
    except SkillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
