"""Checkpoints of a training, from which it goes on after any stop.

A checkpoint is written beside the newest and renamed; the one before it is kept, and taken where
the newest is damaged.
"""

import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from skill.utils.errors import SkillError
from skill.utils.files import write_state

_CHECKPOINT_SECONDS = 60.0


@dataclass
class Checkpoints:
    """Two files of one run in `folder`: the newest state, and the one before it.

    `fingerprint` is what the run depends on: a checkpoint of another one is not resumed. Of several
    processes only the main one writes.
    """

    folder: Path
    fingerprint: str
    is_main: bool
    saved: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self.saved > _CHECKPOINT_SECONDS

    def save(self, step: int, **parts: Any) -> None:
        """Write the state after `step` steps."""
        if self.is_main:
            newest = self.folder / "newest.pt"
            state = {"step": step, "fingerprint": self.fingerprint} | parts
            write_state(self.folder / "next.pt", state)
            if newest.exists():
                newest.replace(self.folder / "previous.pt")
            (self.folder / "next.pt").replace(newest)
        self.saved = time.monotonic()  # after writing, which may take longer than the pause

    def load(self) -> dict[str, Any] | None:
        """The newest sound state of this run, "step" and parts; None: it starts from nothing."""
        if self.is_main:
            for left in self.folder.glob(".next-*.pt"):  # of a run that was killed while it wrote
                left.unlink(missing_ok=True)
        for name in ("newest.pt", "next.pt", "previous.pt"):
            path = self.folder / name
            if not path.exists():
                continue
            try:
                state = _read(path)
            except Exception as error:  # torch raises many kinds for a damaged file
                why = (str(error).splitlines() or [type(error).__name__])[0]
                print(f"warning: {path}: damaged checkpoint skipped ({why})", file=sys.stderr)
                continue
            if state["fingerprint"] != self.fingerprint:
                print(f"{path}: of another run, not resumed", file=sys.stderr)
                continue
            print(f"{path}: resumed at step {state['step']}", file=sys.stderr, flush=True)
            return state
        return None


def _read(path: Path) -> dict[str, Any]:
    """The state in a file that `save` wrote.

    torch writes a sum for each part of a file and does not look at it when it reads.

    Raises:
        ValueError: a part is not what was written, or the file holds no such state.
    """
    if not path.is_file():
        raise ValueError("it is no file")
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} is not what was written")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not isinstance(state.get("fingerprint"), str):
        raise ValueError("it holds no state of a training")
    if type(state.get("step")) is not int or state["step"] < 0:
        raise ValueError(f"its step is {state.get('step')!r}")
    return state


@contextmanager
def restoring(folder: Path) -> Iterator[None]:
    """Around what takes a loaded state apart.

    Raises:
        SkillError: it is sound, but not of this training.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise SkillError(
            f"{folder}: a resume file in it has another content than this training writes ({why}); "
            "remove it to start anew"
        ) from error


def forget(folder: Path) -> None:
    """Remove the checkpoints of a run whose results are written: gigabytes at Base size."""
    for path in folder.glob("*.pt"):
        path.unlink()
