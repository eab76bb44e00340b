"""Signals that end a training between two steps, its state saved."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from skill.training.distributed import gather


class Stopped(SystemExit):
    """The run was told to stop and has saved its state."""


class Stop:
    """The signal that has come, 0 while there is none."""

    signal = 0

    def agreed(self) -> int:
        """The signal that has come to any process: all stop after the same step."""
        return max(gather(self.signal))


@contextmanager
def signals() -> Iterator[Stop]:
    """Turn SIGTERM, SIGINT and SIGHUP into a flag that the loop reads between steps.

    The same signal again stops at once. A SIGHUP that is ignored (`nohup`) stays so.
    """
    stop = Stop()

    def handler(number: int, _frame: object) -> None:
        if stop.signal == number:
            raise KeyboardInterrupt
        stop.signal = number

    heard = {signal.SIGTERM, signal.SIGINT} | hangup_signals()
    previous = {s: signal.signal(s, handler) for s in heard}
    try:
        yield stop
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


def hangup_signals() -> set[signal.Signals]:
    """SIGHUP, the terminal was closed, unless it is ignored (`nohup`)."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return set() if ignored else {signal.SIGHUP}
