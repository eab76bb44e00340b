"""Room on a disk, and one job at a time in a folder."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from skill.utils.errors import SkillError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; a second process waits, and says that it does.

    Raises:
        SkillError: the file cannot be made, or is a link.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"waiting for another job that holds {path}", file=sys.stderr, flush=True)
            lock.acquire()
    except OSError as error:
        raise SkillError(f"{path}: cannot be locked: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def need_space(folder: Path, size: int, what: str) -> None:
    """Raise `SkillError` where `folder`'s disk has less than `size` bytes left."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < size:
        raise SkillError(
            f"no disk space: {what} needs {size / 1e9:.2f} GB in {folder}, "
            f"{free / 1e9:.2f} GB are free"
        )
