"""How a file comes from an address: in parts, resumed, patiently, and only if it is right.

Each part is one request for a range; all write into one hidden file, and a hidden note beside it
says what has arrived of which version. Servers that know no ranges are read from the start.
"""

import http.client
import json
import os
import random
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import pairwise
from pathlib import Path
from typing import Any

from skill.utils.errors import SkillError
from skill.utils.progress import Tracker, track
from skill.utils.remote import Patience, Remote, accept, checked_address, need_space

MEBIBYTE = 1 << 20
_CHUNK = 1 << 18
_SMALLEST_PART = 8 * MEBIBYTE
_SAVE_EVERY = 16 * MEBIBYTE
_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_REASONS = {
    401: "it wants a login",
    403: "it refuses access",
    404: "there is no such file",
    410: "the file is gone",
}


class _Transient(Exception):
    """Worth another try; `wait` is what the server asked for, in seconds."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class _NoRanges(Exception):
    """The server sends the whole file whatever is asked for."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirections, to allowed addresses only."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise SkillError(f"{req.full_url}: leads to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, checked_address(newurl))


class Transfer:
    """One file from one address: hidden data, and a note of what has arrived, beside the target."""

    def __init__(self, remote: Remote, target: Path, patience: Patience) -> None:
        self.remote, self.target, self.patience = remote, target, patience
        self.data = target.with_name(f".{target.name}.part")
        self.note = target.with_name(f".{target.name}.json")
        self.opener = urllib.request.build_opener(_Redirects)
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.done: list[int] = []  # bytes that arrived, per part
        self.tag = ""  # what the server calls this version of the file
        self.unsaved = self.shown = 0
        self.progress: Tracker

    def run(self, parts: int) -> None:
        checked_address(self.remote.address)
        self.stop.clear()
        resumed = sum(self._noted()[1])
        need_space(self.target.parent, self.remote.size - resumed, self.remote.name)
        label = f"download {self.remote.name}, MB"
        try:
            with track(self.remote.size // 10**6, label, resumed // 10**6) as self.progress:
                try:
                    self._in_parts(parts)
                except _NoRanges:
                    self._forget()
                    self._patiently(self._whole, lambda: 0)
            self.note.unlink(missing_ok=True)
            try:
                accept(self.remote, self.data, self.target, self.remote.address)
            except SkillError:
                if not resumed:
                    raise
                self.run(parts)  # what an earlier process left may be what is wrong
        except OSError as error:
            raise SkillError(f"{self.data}: cannot be written: {error.strerror}") from error

    def _noted(self) -> tuple[str, list[int]]:
        """Tag and arrived bytes of an earlier try; nothing, where there is none that fits."""
        try:
            note = json.loads(self.note.read_text())
            tag, done = str(note["tag"]), [int(n) for n in note["done"]]
            same = (note["size"], note["address"]) == (self.remote.size, self.remote.address)
            if not same or not done or self.data.stat().st_size != self.remote.size:
                return "", []
        except (OSError, ValueError, KeyError, TypeError):
            return "", []
        spans = zip(done, _spans(self.remote.size, len(done)), strict=True)
        return (
            (tag, done) if all(0 <= n <= last - first for n, (first, last) in spans) else ("", [])
        )

    def _save(self) -> None:
        """Note what has arrived; the bytes first. Without a tag it could not be resumed."""
        if not self.tag:
            return
        with self.data.open("rb") as file:
            os.fsync(file.fileno())
        note = {"tag": self.tag, "done": self.done, "size": self.remote.size}
        fresh = self.note.with_suffix(".new")
        fresh.write_text(json.dumps(note | {"address": self.remote.address}))
        fresh.replace(self.note)
        self.unsaved = 0

    def _forget(self) -> None:
        """Begin anew, without ranges."""
        self.note.unlink(missing_ok=True)
        self.tag, self.done = "", [0]
        self.stop.clear()

    def _in_parts(self, parts: int) -> None:
        self._patiently(self._probe, lambda: 0)
        tag, done = self._noted()
        if not done or tag != self.tag:
            self.note.unlink(missing_ok=True)
            done = [0] * max(1, min(parts, self.remote.size // _SMALLEST_PART))
            with self.data.open("wb") as file:
                file.truncate(self.remote.size)
        self.done = done
        spans = _spans(self.remote.size, len(done))
        with ThreadPoolExecutor(len(spans)) as pool:
            jobs = [pool.submit(self._part, number, *span) for number, span in enumerate(spans)]
            try:
                for job in as_completed(jobs):
                    job.result()
            finally:
                self.stop.set()

    def _open(self, first: int | None = None, last: int | None = None) -> http.client.HTTPResponse:
        """The server's answer to a request for bytes `first` to `last` (inclusive)."""
        headers = {"User-Agent": "skill", "Accept-Encoding": "identity"}
        if first is not None:
            headers["Range"] = f"bytes={first}-{last}"
            if self.tag:
                headers["If-Range"] = self.tag
        request = urllib.request.Request(self.remote.address, headers=headers)
        try:
            answer: http.client.HTTPResponse = self.opener.open(
                request, timeout=self.patience.stall
            )
            return answer
        except urllib.error.HTTPError as error:
            where, code = self.remote.address, error.code
            if code in _AGAIN:
                raise _Transient(f"{where}: the server says {code}", _asked(error)) from None
            why = _REASONS.get(code, error.reason)
            raise SkillError(f"{where}: the server says {code}: {why}") from None
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            raise _Transient(f"{self.remote.address}: {_why(error)}") from None

    def _probe(self) -> None:
        """Learn whether the server knows ranges, how long its file is, and its version."""
        with self._open(0, 0) as answer:
            if answer.status != 206:
                raise _NoRanges
            size = (answer.headers.get("Content-Range") or "").rpartition("/")[2]
            self._check_size(size)
            tag, date = answer.headers.get("ETag") or "", answer.headers.get("Last-Modified") or ""
            self.tag = date if not tag or tag.startswith("W/") else tag

    def _check_size(self, size: str | None) -> None:
        if size and size.isdecimal() and int(size) != self.remote.size:
            raise SkillError(
                f"{self.remote.address}: the file has {size} bytes, not {self.remote.size}"
            )

    def _part(self, number: int, first: int, last: int) -> None:
        def attempt() -> None:
            at = first + self.done[number]
            if at >= last or self.stop.is_set():
                return
            with self._open(at, last - 1) as answer:
                given = answer.headers.get("Content-Range") or ""
                if answer.status != 206:
                    raise _NoRanges  # or the file has changed since the probe
                if not given.startswith(f"bytes {at}-"):
                    raise _Transient(f"{self.remote.address}: sent {given or 'no range'}")
                self._receive(answer, number, at, last)

        self._patiently(attempt, lambda: self.done[number])

    def _whole(self) -> None:
        with self._open() as answer:
            self._check_size(answer.headers.get("Content-Length"))
            self.done = [0]
            self.data.write_bytes(b"")
            self._receive(answer, 0, 0, self.remote.size)

    def _receive(self, answer: http.client.HTTPResponse, number: int, at: int, last: int) -> None:
        """Write what the server sends to the bytes from `at` up to `last`."""
        with self.data.open("r+b") as file:
            file.seek(at)
            while at < last and not self.stop.is_set():
                try:
                    content = answer.read1(min(_CHUNK, last - at))
                except (http.client.HTTPException, OSError, ValueError) as error:
                    raise _Transient(f"{self.remote.address}: {_why(error)}") from None
                if not content:
                    raise _Transient(f"{self.remote.address}: the connection broke off")
                file.write(content)
                file.flush()
                at += len(content)
                with self.lock:
                    self.done[number] += len(content)
                    self.unsaved += len(content)
                    if self.unsaved >= _SAVE_EVERY:
                        self._save()
                    if (megabytes := sum(self.done) // 10**6) != self.shown:
                        self.shown = megabytes
                        self.progress.update(megabytes)

    def _patiently(self, attempt: Callable[[], None], arrived: Callable[[], int]) -> None:
        """Try until it works; give up after some tries in a row in which nothing arrived."""
        patience, failures, before = self.patience, 0, arrived()
        while not self.stop.is_set():
            try:
                return attempt()
            except _Transient as problem:
                failures = 1 if arrived() > before else failures + 1
                before = arrived()
                if failures >= patience.tries:
                    with self.lock:
                        self._save()
                    raise SkillError(f"{problem}; gave up after {failures} tries") from None
                wait = patience.first_wait * 2 ** (failures - 1) * random.uniform(0.5, 1.0)
                self.stop.wait(min(max(wait, problem.wait), patience.longest_wait))


def _spans(size: int, parts: int) -> list[tuple[int, int]]:
    """`size` bytes in `parts` spans (first, last exclusive)."""
    edges = [size * number // parts for number in range(parts + 1)]
    return list(pairwise(edges))


def _asked(error: urllib.error.HTTPError) -> float:
    value = error.headers.get("Retry-After") or ""
    return float(value) if value.isdecimal() else 0.0


def _why(error: BaseException) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return "the server sends nothing"
    return str(reason) or type(reason).__name__
