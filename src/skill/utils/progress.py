"""Progress of long verbs: a bar on a terminal, a plain line every half minute elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 30.0


class Tracker:
    """Counts the steps of one long run and shows them."""

    def __init__(self, total: int, label: str, start: int, stream: TextIO) -> None:
        self.total, self.label, self.stream = total, label, stream
        self.first, self.began, self.last_line = start, time.monotonic(), time.monotonic()
        self.bar: Progress | None = None
        if stream.isatty():
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[figures]}"),
                TimeRemainingColumn(),
                console=Console(file=stream),
            )
            self.bar.start()
            self.job = self.bar.add_task(label, total=total, completed=start, figures="")

    def update(self, step: int, **figures: float) -> None:
        """Say that `step` steps are done; `figures` are shown beside it, in the given order."""
        text = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        if self.bar is not None:
            self.bar.update(self.job, completed=step, figures=text)
            return
        now = time.monotonic()
        if step < self.total and now - self.last_line < _SECONDS_BETWEEN_LINES:
            return
        self.last_line = now
        pace = (now - self.began) / max(step - self.first, 1)
        left = pace * (self.total - step)
        print(
            f"{self.label}: {step}/{self.total}  {text}  {left:.0f} s left",
            file=self.stream,
            flush=True,
        )

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()


@contextmanager
def track(
    total: int, label: str, start: int = 0, stream: TextIO | None = None
) -> Iterator[Tracker]:
    """Show the progress of `total` steps under `label` on standard error (or `stream`)."""
    tracker = Tracker(total, label, start, stream or sys.stderr)
    try:
        yield tracker
    finally:
        tracker.close()
