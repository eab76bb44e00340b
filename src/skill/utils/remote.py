"""A file elsewhere: its address, size and checksum, and what has to hold before it is used."""

import fcntl
import hashlib
import ipaddress
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from skill.utils.errors import SkillError


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, in seconds, and how often to try without any progress."""

    stall: float = 60.0
    tries: int = 7
    first_wait: float = 1.0
    longest_wait: float = 120.0


@dataclass(frozen=True)
class Remote:
    """A file as its owner describes it: `checksum` is `sha256:HEX` or `md5:HEX`."""

    address: str
    size: int
    checksum: str

    @property
    def name(self) -> str:
        return PurePosixPath(urlsplit(self.address).path).name


def checked_address(address: str) -> str:
    """`address`, if it is https, or http to this machine.

    Raises:
        SkillError: it is neither.
    """
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError as error:
        raise SkillError(f"{address}: no address: {error}") from None
    if parts.scheme == "https" and host:
        return address
    if parts.scheme == "http" and _is_loopback(host):
        return address
    raise SkillError(f"{address}: only https addresses are fetched (http from this machine only)")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; a second process waits, and says that it does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another job that holds {path}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def need_space(folder: Path, size: int, what: str) -> None:
    """Raise `SkillError` where `folder`'s disk has less than `size` bytes left."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < size:
        raise SkillError(
            f"no disk space: {what} needs {size / 1e9:.2f} GB in {folder}, "
            f"{free / 1e9:.2f} GB are free"
        )


def digest(path: Path, algorithm: str) -> str:
    """The checksum of a file as `ALGORITHM:HEX`."""
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def accept(remote: Remote, data: Path, target: Path, source: str) -> None:
    """Rename `data` to `target` if its checksum is right, else delete it."""
    found = digest(data, remote.checksum.partition(":")[0])
    if found != remote.checksum:
        data.unlink()
        raise SkillError(f"{source}: wrong bytes: {found} instead of {remote.checksum}")
    with data.open("rb") as file:
        os.fsync(file.fileno())
    data.replace(target)
