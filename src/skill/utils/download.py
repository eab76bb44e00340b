"""One downloader: a file of known checksum arrives whole, or there is an error in words.

A file that broke off, also when its process was killed, goes on where it was, and gets its name
only when its checksum is right. SKILL_MIRROR, a folder or an address, is tried first; with
SKILL_OFFLINE set, a folder is all that is tried. Addresses are https; http is for this machine.
A cache may be shared: what is right is used without writing, and no link is followed.
"""

import hashlib
import os
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from skill.utils.disk import locked, need_space
from skill.utils.errors import SkillError
from skill.utils.files import replacing
from skill.utils.progress import track
from skill.utils.text import masked

_CHUNK = 1 << 18
_AGAIN = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class RetryPolicy:
    """Seconds to wait for a server, the least speed (bytes/s), and how many tries may fail."""

    stall: float = 60.0
    slowest: float = 2000.0
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

    def matches(self, path: Path) -> bool:
        """Whether the file `path` has this size and checksum."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        algorithm, _, digest = self.checksum.partition(":")
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest() == digest


class _Transient(Exception):
    """Worth another try: what happened, and the seconds to wait that the server asked for."""


def fetch(remote: Remote, folder: Path, policy: RetryPolicy | None = None) -> Path:
    """The file in `folder`, fetched unless the right one is there.

    Raises:
        SkillError: no source has the right file, there is no space, the folder cannot be written to
            or the address is not https; the message has each source's reason. What arrived stays
            hidden for the next try, unless its checksum was wrong.
    """
    if remote.checksum.partition(":")[0] not in ("sha256", "md5"):
        raise SkillError(f"{remote.name}: the checksum {remote.checksum!r} is of no known kind")
    target = folder / remote.name
    if remote.matches(target):
        return target
    mirror, offline = os.environ.get("SKILL_MIRROR", ""), os.environ.get("SKILL_OFFLINE")
    sources = [] if offline else [remote.address]
    if mirror and ("://" not in mirror or not offline):
        sources.insert(
            0, urljoin(mirror.rstrip("/") + "/", remote.name) if "://" in mirror else mirror
        )
    problems = []
    with locked(folder / f".{remote.name}.lock"):
        if remote.matches(target):  # by the job that held the lock
            return target
        for source in sources:
            try:
                if "://" in source:
                    _download(replace(remote, address=source), target, policy or RetryPolicy())
                else:
                    _copy(remote, Path(source, remote.name), target)
                return target
            except SkillError as error:
                problems.append(str(error))
    reasons = "; ".join([*problems, *(["SKILL_OFFLINE is set"] if offline else [])])
    raise SkillError(f"{remote.name} could not be downloaded: {reasons}")


def _copy(remote: Remote, source: Path, target: Path) -> None:
    if not source.is_file():
        raise SkillError(f"{source} does not exist")
    need_space(target.parent, remote.size, remote.name)
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
        if not remote.matches(temporary):
            raise SkillError(f"{source}: wrong bytes: the checksum is not {remote.checksum}")


def _download(remote: Remote, target: Path, policy: RetryPolicy) -> None:
    checked_address(remote.address)
    part = target.with_name(f".{target.name}.part")
    try:
        if part.is_symlink() or not part.is_file() or part.stat().st_nlink > 1:
            part.unlink(missing_ok=True)
        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "r+b") as file:
            resumed = file.seek(0, os.SEEK_END)
            need_space(target.parent, remote.size - resumed, remote.name)
            _patiently(remote, file, part.with_suffix(".tag"), policy)
            os.fsync(file.fileno())
        part.with_suffix(".tag").unlink(missing_ok=True)
        if remote.matches(part):
            part.chmod(0o644)
            part.replace(target)
            return
        part.unlink()
    except OSError as error:
        raise SkillError(f"{part}: cannot be written: {error.strerror or error}") from error
    if not resumed:
        where = masked(remote.address)
        raise SkillError(f"{where}: wrong bytes: the checksum is not {remote.checksum}")
    _download(remote, target, policy)  # what an earlier process left may be what was wrong


def _patiently(remote: Remote, file: BinaryIO, tag: Path, policy: RetryPolicy) -> None:
    """Receive until all is there; give up after some tries in a row that brought too little."""
    failures = 0
    with track(remote.size // 10**6, f"download {remote.name}, MB", file.tell() // 10**6) as bar:
        while (before := file.tell()) < remote.size:
            try:
                for size in _received(remote, file, tag, policy):
                    bar.update(size // 10**6)
            except (_Transient, requests.RequestException, urllib3.exceptions.HTTPError) as error:
                late = isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError)
                pause = error.args[1] if isinstance(error, _Transient) else 0.0
                problem = "the server sends nothing" if late else str(error.args[0])
                enough = file.tell() - before > policy.stall * policy.slowest
                failures = 1 if enough else failures + 1
                if failures >= policy.tries:
                    failure = masked(f"{remote.address}: {problem}")
                    raise SkillError(f"{failure}; gave up after {failures} tries") from None
                back_off = policy.first_wait * 2 ** (failures - 1) * random.uniform(0.5, 1.0)
                time.sleep(min(max(back_off, pause), policy.longest_wait))


def _received(remote: Remote, file: BinaryIO, tag: Path, policy: RetryPolicy) -> Iterator[int]:
    """Append what one request brings; the size of the file after each piece."""
    begin, version = file.tell(), tag.read_text("latin-1") if tag.is_file() else ""
    headers = {"User-Agent": "skill", "Accept-Encoding": "identity"}
    if begin and version:  # `tag` says which version of the file the part is of
        headers |= {"Range": f"bytes={begin}-", "If-Range": version}
    with requests.get(
        remote.address, headers=headers, stream=True, timeout=policy.stall, hooks=_HOOKS
    ) as answer:
        where, code, fields = masked(remote.address), answer.status_code, answer.headers
        if code in _AGAIN:
            wait = fields.get("Retry-After", "")
            raise _Transient(f"the server says {code}", float(wait) if wait.isdecimal() else 0.0)
        if code not in (200, 206):
            raise SkillError(f"{where}: the server says {code}: {answer.reason}")
        content_range = fields.get("Content-Range", "")
        size = content_range.rpartition("/")[2] if code == 206 else fields.get("Content-Length", "")
        if size.isdecimal() and int(size) != remote.size:
            raise SkillError(f"{where}: the file has {size} bytes, not {remote.size}")
        if code == 200 or not content_range.startswith(f"bytes {begin}-"):
            begin = file.seek(file.truncate(0))
        strong = fields.get("ETag", "")
        with replacing(tag) as temporary:
            temporary.write_text(strong if strong[:1] == '"' else fields.get("Last-Modified", ""))
        since = time.monotonic()
        while (at := file.tell()) < remote.size:
            content = answer.raw.read1(min(_CHUNK, remote.size - at))
            if not content:
                raise _Transient("the connection broke off", 0.0)
            file.write(content)
            file.flush()
            yield at + len(content)
            seconds = time.monotonic() - since
            if seconds > policy.stall and at - begin < seconds * policy.slowest:
                raise _Transient(f"slower than {policy.slowest:g} bytes a second", 0.0)


def _check_redirection(answer: requests.Response, **_: object) -> None:
    if answer.is_redirect:
        address = checked_address(urljoin(answer.url, answer.headers["location"]))
        if answer.url.startswith("https:") and not address.startswith("https:"):
            raise SkillError(f"{masked(answer.url)}: leads to {masked(address)}, not to https")


_HOOKS = {"response": _check_redirection}


def checked_address(address: str) -> str:
    """`address`, if it is https, or http to this machine.

    Raises:
        SkillError: it is neither.
    """
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError as error:
        raise SkillError(f"{masked(address)}: no address: {error}") from None
    local = host in ("localhost", "127.0.0.1", "::1")
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise SkillError(f"{masked(address)}: only https addresses are fetched")
    return address
