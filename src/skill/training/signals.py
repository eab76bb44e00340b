"""Signals that end a program; a training ends between two steps, its state saved.

A job that is told to stop hears of it several times: Slurm signals every process, the parent of
several processes its own, and the end of the run does so, too. So only the first signal counts.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_AGAIN = 3.0  # seconds


class Stopped(SystemExit):
    """The run was told to stop and has saved its state."""


class Stop:
    """The first signal that has come, 0 while there is none."""

    signal = 0

    def agreed(self) -> int:
        """The signal that has come to any process: all stop after the same step."""
        from skill.training.distributed import gather

        return max(gather(self.signal))


_stop = Stop()


def received() -> int:
    """The first signal that this process was told to end by, 0 if none."""
    return _stop.signal


def _flag(number: int, _frame: object) -> None:
    _stop.signal = _stop.signal or number


def _exit(number: int, _frame: object) -> None:
    """Leave by the ordinary way, so that temporary files are removed."""
    if not _stop.signal:
        _stop.signal = number
        _raise_repeatedly(SystemExit(128 + number))


def interrupt(_number: int, _frame: object) -> None:
    """Ctrl-C: a KeyboardInterrupt."""
    _raise_repeatedly(KeyboardInterrupt())


def _raise_repeatedly(error: BaseException) -> None:
    """Raise `error`, again and again: a callback of a C library drops what is raised in it."""

    def again(_number: int, _frame: object) -> None:
        raise error

    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, _AGAIN, _AGAIN)
    raise error


def arrived() -> None:
    """The error of a signal has arrived: it is not raised again."""
    signal.setitimer(signal.ITIMER_REAL, 0)


def exit_on_signals() -> None:
    """The first SIGTERM or SIGHUP ends this program with 128 + its number; the next do nothing."""
    for number in {signal.SIGTERM} | hangup_signals():
        signal.signal(number, _exit)


@contextmanager
def signals() -> Iterator[Stop]:
    """Turn SIGTERM, SIGINT and SIGHUP into a flag that a loop reads between its steps.

    A SIGHUP that is ignored (`nohup`) stays so. Once the flag is set, the handlers stay: the
    program is about to end.
    """
    _stop.signal = 0
    numbers = {signal.SIGTERM, signal.SIGINT} | hangup_signals()
    previous = {number: signal.signal(number, _flag) for number in numbers}
    try:
        yield _stop
    finally:
        if not _stop.signal:
            for number, handler in previous.items():
                signal.signal(number, handler)


def hangup_signals() -> set[signal.Signals]:
    """SIGHUP, the terminal was closed, unless it is ignored (`nohup`)."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return set() if ignored else {signal.SIGHUP}
