"""The downloader against a server that misbehaves: right bytes or a clear error, never a half."""

import gzip
import hashlib
import io
import json
import multiprocessing
import os
import random
import signal
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from skill.config.params import Corpus
from skill.data.corpora import archives, prepare
from skill.utils import remote, transfer
from skill.utils.download import fetch
from skill.utils.errors import SkillError
from skill.utils.remote import Patience, Remote, checked_address

CONTENT = random.Random(0).randbytes(3_000_017)
SHA = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(stall=0.5, tries=4, first_wait=0.01, longest_wait=0.1)


class Server(ThreadingHTTPServer):
    """Serves `content`; `behave(handler, first, last)` may do something else and return True."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.tag = CONTENT, '"one"'
        self.ranges = True
        self.requests: list[str] = []
        self.behave: Callable[[Handler, int, int], bool] = lambda *_: False

    @property
    def remote(self) -> Remote:
        return Remote(f"http://127.0.0.1:{self.server_port}/a.tar.gz", len(CONTENT), SHA)

    def handle_error(self, *_: object) -> None:
        pass


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        fresh = self.headers.get("If-Range", self.server.tag) == self.server.tag
        self.server.requests.append(asked or "whole")
        content, first, last = self.server.content, 0, len(self.server.content) - 1
        ranged = bool(asked) and self.server.ranges and fresh
        if asked and ranged:
            first, last = (int(n) for n in asked.removeprefix("bytes=").split("-"))
        if self.server.behave(self, first, last):
            self.close_connection = True
            return
        self.head(206 if ranged else 200, first, last)
        self.wfile.write(content[first : last + 1])

    def head(self, code: int, first: int, last: int, **more: str) -> None:
        self.send_response(code)
        if code == 206:
            total = len(self.server.content)
            self.send_header("Content-Range", f"bytes {first}-{last}/{total}")
        if self.server.tag:
            self.send_header("ETag", self.server.tag)
        self.send_header("Content-Length", str(last - first + 1))
        for name, value in more.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("SKILL_MIRROR", "SKILL_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(transfer, "_SMALLEST_PART", 500_000)
    monkeypatch.setattr(transfer, "_SAVE_EVERY", 200_000)
    one = Server()
    threading.Thread(target=one.serve_forever, args=(0.02,), daemon=True).start()
    yield one
    one.shutdown()
    one.server_close()


def seen(folder: Path) -> set[str]:
    """Names that a user sees."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def wrong(server: Server, folder: Path, said: str) -> None:
    """Fetching fails with these words and leaves nothing that looks finished."""
    with pytest.raises(SkillError, match=said) as error:
        fetch(server.remote, folder, patience=QUICK)
    assert "a.tar.gz" in str(error.value)
    assert not seen(folder)


def test_a_file_comes_in_parts_and_only_once(server: Server, tmp_path: Path) -> None:
    path = fetch(server.remote, tmp_path / "a folder", patience=QUICK)
    assert path.read_bytes() == CONTENT
    assert len(server.requests) == 5 and server.requests[0] == "bytes=0-0"
    assert fetch(server.remote, tmp_path / "a folder") == path
    assert len(server.requests) == 5
    assert {p.name for p in path.parent.iterdir()} == {"a.tar.gz", ".a.tar.gz.lock"}


def test_md5_serves_where_a_publisher_has_nothing_else(server: Server, tmp_path: Path) -> None:
    wanted = replace(server.remote, checksum="md5:" + hashlib.md5(CONTENT).hexdigest())
    assert fetch(wanted, tmp_path, patience=QUICK).read_bytes() == CONTENT
    with pytest.raises(SkillError, match="no known kind"):
        fetch(replace(wanted, checksum="crc:0"), tmp_path / "b", patience=QUICK)


def test_connections_that_are_cut_again_and_again(server: Server, tmp_path: Path) -> None:
    def cut(handler: Handler, first: int, last: int) -> bool:
        if last - first < 100_000:
            return False
        handler.head(206, first, last)
        handler.wfile.write(CONTENT[first : first + 90_000])
        return True

    server.behave = cut
    assert fetch(server.remote, tmp_path, patience=QUICK).read_bytes() == CONTENT
    starts = [int(r.removeprefix("bytes=").split("-")[0]) for r in server.requests[1:]]
    assert len(set(starts)) == len(starts) > 25, "no byte is asked for twice"


def test_a_server_without_ranges(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    assert fetch(server.remote, tmp_path, patience=QUICK).read_bytes() == CONTENT
    cuts = iter([True, True, False])

    def cut(handler: Handler, first: int, last: int) -> bool:
        if handler.server.requests[-1] != "whole" or not next(cuts):
            return False
        handler.head(200, first, last)
        handler.wfile.write(CONTENT[:1_000_000])
        return True

    server.behave = cut
    assert fetch(server.remote, tmp_path / "b", patience=QUICK).read_bytes() == CONTENT


def test_a_server_that_forgets_ranges_in_the_middle(server: Server, tmp_path: Path) -> None:
    def forget(handler: Handler, first: int, last: int) -> bool:
        server.ranges = len(server.requests) < 3
        return False

    server.behave = forget
    assert fetch(server.remote, tmp_path, patience=QUICK).read_bytes() == CONTENT
    assert "whole" in server.requests


@pytest.mark.parametrize("ranges", [True, False])
def test_wrong_bytes(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.ranges = ranges
    server.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    wrong(server, tmp_path, "wrong bytes: sha256:")
    server.content = CONTENT
    assert fetch(server.remote, tmp_path, patience=QUICK).read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("more", [b"", CONTENT + b"x"])
def test_a_file_of_another_length(
    server: Server, tmp_path: Path, ranges: bool, more: bytes
) -> None:
    server.ranges, server.content = ranges, more or CONTENT[:-5]
    wrong(server, tmp_path, f"the file has {len(server.content)} bytes, not {len(CONTENT)}")


@pytest.mark.parametrize(
    ("code", "said"), [(401, "login"), (403, "refuses access"), (404, "no such file")]
)
def test_a_refusal_is_final(server: Server, tmp_path: Path, code: int, said: str) -> None:
    def refuse(handler: Handler, *_: int) -> bool:
        handler.send_error(code)
        return True

    server.behave = refuse
    wrong(server, tmp_path, f"says {code}: .*{said}")
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path, code: int) -> None:
    bad = 2

    def busy(handler: Handler, *_: int) -> bool:
        if len(server.requests) % 3 == 0 or bad < 0:
            return False
        handler.send_response(code)
        handler.send_header("Retry-After", "0")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    server.behave = busy
    patient = replace(QUICK, tries=40)
    assert fetch(server.remote, tmp_path, patience=patient).read_bytes() == CONTENT
    assert len(server.requests) >= 15


@pytest.mark.parametrize("code", [429, 500])
def test_a_server_that_stays_busy(server: Server, tmp_path: Path, code: int) -> None:
    def busy(handler: Handler, *_: int) -> bool:
        handler.send_error(code)
        return True

    server.behave = busy
    wrong(server, tmp_path, f"says {code}; gave up after 4 tries")
    assert len(server.requests) == 4


def test_retry_after_is_obeyed(server: Server, tmp_path: Path) -> None:
    def busy(handler: Handler, *_: int) -> bool:
        if len(server.requests) > 1:
            return False
        handler.send_response(429)
        handler.send_header("Retry-After", "1")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    server.behave = busy
    began = time.monotonic()
    fetch(server.remote, tmp_path, patience=replace(QUICK, longest_wait=5.0))
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize("always", [True, False])
def test_a_server_that_stalls(server: Server, tmp_path: Path, always: bool) -> None:
    released = threading.Event()

    def stall(handler: Handler, first: int, last: int) -> bool:
        if last == 0 or (not always and len(server.requests) > 5):
            return False
        handler.head(206, first, last)
        handler.wfile.write(CONTENT[first : first + 1000] if not always else b"")
        handler.wfile.flush()
        released.wait(20)
        return True

    server.behave = stall
    patience = replace(QUICK, stall=0.2)
    try:
        if always:
            with pytest.raises(SkillError, match="sends nothing; gave up"):
                fetch(server.remote, tmp_path, patience=patience)
            assert not seen(tmp_path)
        else:
            assert fetch(server.remote, tmp_path, patience=patience).read_bytes() == CONTENT
    finally:
        released.set()


def test_nobody_answers(server: Server, tmp_path: Path) -> None:
    server.shutdown()
    server.server_close()
    wrong(server, tmp_path, "refused; gave up after 4 tries")


def _child(wanted: Remote, folder: Path) -> None:
    fetch(wanted, folder, patience=replace(QUICK, stall=30.0))


@pytest.mark.parametrize("changed", ["", "bytes", "tag"])
def test_a_killed_download_goes_on_where_it_was(
    server: Server, tmp_path: Path, changed: str
) -> None:
    """SIGKILL in the middle; what had arrived is used, unless it is damaged or the file changed."""
    halted, go = threading.Event(), threading.Event()

    def halt(handler: Handler, first: int, last: int) -> bool:
        if last == 0 or go.is_set():
            return False
        handler.head(206, first, last)
        handler.wfile.write(CONTENT[first : first + 500_000])
        handler.wfile.flush()
        halted.set()
        go.wait(20)
        return True

    server.behave = halt
    child = multiprocessing.get_context("fork").Process(
        target=_child, args=(server.remote, tmp_path)
    )
    child.start()
    assert halted.wait(20)
    note = tmp_path / ".a.tar.gz.json"
    deadline = time.monotonic() + 20
    while not note.exists() or sum(json.loads(note.read_text())["done"]) < 1_000_000:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert not seen(tmp_path)
    go.set()
    server.requests.clear()
    if changed == "tag":
        server.tag = '"two"'
    if changed == "bytes":
        with (tmp_path / ".a.tar.gz.part").open("r+b") as file:
            file.write(bytes(10))
    assert fetch(server.remote, tmp_path, patience=QUICK).read_bytes() == CONTENT
    asked_again = server.requests[server.requests.index("bytes=0-0") + 1 :]
    spans = [r.removeprefix("bytes=").split("-") for r in asked_again]
    kept = len(CONTENT) - sum(int(last) - int(first) + 1 for first, last in spans)
    assert (kept > 900_000) == (changed == ""), server.requests


def test_two_jobs_fetch_a_file_once(server: Server, tmp_path: Path) -> None:
    def slow(*_: object) -> bool:
        time.sleep(0.2)
        return False

    server.behave = slow
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=_child, args=(server.remote, tmp_path)) for _ in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(30)
        assert job.exitcode == 0
    assert len(server.requests) == 5
    assert (tmp_path / "a.tar.gz").read_bytes() == CONTENT


def test_mirror_folder_comes_first_and_serves_offline(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = tmp_path / "a mirror"
    mirror.mkdir()
    monkeypatch.setenv("SKILL_MIRROR", str(mirror))
    assert fetch(server.remote, tmp_path / "1", patience=QUICK).read_bytes() == CONTENT
    assert server.requests, "what the mirror lacks comes from the source"
    server.requests.clear()
    monkeypatch.setenv("SKILL_OFFLINE", "1")
    with pytest.raises(SkillError, match=r"a mirror/a.tar.gz does not exist; SKILL_OFFLINE is set"):
        fetch(server.remote, tmp_path / "2", patience=QUICK)
    (mirror / "a.tar.gz").write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(SkillError, match="wrong bytes"):
        fetch(server.remote, tmp_path / "2", patience=QUICK)
    assert not seen(tmp_path / "2")
    (mirror / "a.tar.gz").write_bytes(CONTENT)
    assert fetch(server.remote, tmp_path / "2", patience=QUICK).read_bytes() == CONTENT
    assert not server.requests


def test_mirror_address(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = replace(server.remote, address="https://example.invalid/x/a.tar.gz")
    monkeypatch.setenv("SKILL_MIRROR", f"http://127.0.0.1:{server.server_port}/")
    assert fetch(elsewhere, tmp_path, patience=QUICK).read_bytes() == CONTENT
    monkeypatch.setenv("SKILL_OFFLINE", "1")
    with pytest.raises(SkillError, match="SKILL_OFFLINE is set"):
        fetch(elsewhere, tmp_path / "b", patience=QUICK)


def test_disk_space_is_checked_before_the_first_byte(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = remote.shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6)
    monkeypatch.setattr(remote.shutil, "disk_usage", lambda _: usage)
    wrong(server, tmp_path, r"no disk space: a.tar.gz needs 0.00 GB")
    assert not server.requests


@pytest.mark.parametrize(
    "address",
    ["http://example.org/a", "ftp://example.org/a", "file:///etc/passwd", "a", "https://", "http://[",
     "http://localhost.example.org/a", "HTTP://10.0.0.1/a"],
)  # fmt: skip
def test_addresses_that_are_refused(address: str) -> None:
    with pytest.raises(SkillError, match="address"):
        checked_address(address)


@pytest.mark.parametrize(
    "address", ["https://a.org/b", "http://localhost:80/a", "http://127.1.2.3/", "http://[::1]:9/"]
)
def test_addresses_that_are_allowed(address: str) -> None:
    assert checked_address(address) == address


@pytest.mark.parametrize("target", ["http://example.org/a", "file:///etc/passwd", ""])
def test_redirections(server: Server, tmp_path: Path, target: str) -> None:
    def redirect(handler: Handler, *_: int) -> bool:
        if handler.path == "/b":
            return False
        handler.send_response(302)
        handler.send_header("Location", target or "/b")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    server.behave = redirect
    if target:
        wrong(server, tmp_path, "only https|not allowed|says 302")
    else:
        assert fetch(server.remote, tmp_path, patience=QUICK).read_bytes() == CONTENT


def packed(*members: tuple[str, bytes | str | None], kind: bytes = tarfile.SYMTYPE) -> bytes:
    """A tar.gz, the same at any time: bytes are files, None a folder, text a link's target."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type, info.linkname = kind, content
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return gzip.compress(file.getvalue(), mtime=0)


GOOD = packed(("Libri/README", b"x"), ("Libri/part", None), ("Libri/part/1/a b.flac", b"sound"))


def unpacked(tmp_path: Path, content: bytes, limit: int = 10_000) -> Path:
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    (tmp_path / "x.tar.gz").write_bytes(content)
    archives.unpack(tmp_path / "x.tar.gz", "Libri/part", root, limit)
    return root


def test_the_wanted_folder_is_unpacked(tmp_path: Path) -> None:
    root = unpacked(tmp_path, GOOD)
    assert (root / "Libri/part/1/a b.flac").read_bytes() == b"sound"
    assert [p.name for p in root.rglob("*") if p.is_file()] == ["a b.flac"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (packed(("../out", b"x")), "leads out"),
        (packed(("Libri/part/../../../out", b"x")), "leads out"),
        (packed(("/tmp/out", b"x")), "leads out"),
        (packed(("Libri/part/..\\out", b"x")), "leads out"),
        (packed(("Libri/part/l", "/etc/passwd")), "neither file nor folder"),
        (packed(("Libri/part/l", "../../.."), ("Libri/part/l/out", b"x")), "neither file"),
        (packed(("Libri/part/h", "/etc/passwd"), kind=tarfile.LNKTYPE), "neither file"),
        (packed(("Libri/part/d", ""), kind=tarfile.CHRTYPE), "neither file"),
        (packed(("Libri/part/big", bytes(20_000))), "more than 10000 bytes"),
        (packed(("other/big", bytes(20_000))), "more than 10000 bytes"),
        (packed(("Libri/other", b"x")), "no folder Libri/part"),
        (packed(("Libri/part/a", b"x"), ("Libri/part/a", b"y")), "File exists"),
        (packed(("Libri/part/a", b"x"), ("Libri/part/a/b", b"y")), "cannot be unpacked"),
        (GOOD[: len(GOOD) // 2], "damaged"),
        (GOOD[:40] + bytes(20) + GOOD[60:], "damaged|cannot"),
        (b"no archive", "damaged"),
        (b"", "damaged"),
    ],
)
def test_unsafe_and_damaged_archives_leave_nothing(
    tmp_path: Path, content: bytes, said: str
) -> None:
    with pytest.raises(SkillError, match=said):
        unpacked(tmp_path, content)
    assert {p.name for p in tmp_path.iterdir()} == {"root", "x.tar.gz"}
    assert not list((tmp_path / "root").iterdir())


def _libri() -> bytes:
    flac = bytearray(b"fLaC" + bytes([0x80, 0, 0, 34]) + bytes(34))
    flac[18:26] = (16_000 << 44 | 15 << 36 | 12_345).to_bytes(8, "big")
    return packed(
        ("LibriSpeech/dev-clean/84/1/84-1-0000.flac", bytes(flac)),
        ("LibriSpeech/dev-clean/84/1/84-1.trans.txt", b"84-1-0000 SO IT IS\n"),
    )


def test_librispeech_is_fetched_unpacked_and_listed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way, with this server in place of the corpus's own."""
    monkeypatch.setenv("SKILL_CORPORA", str(tmp_path / "the corpora"))
    monkeypatch.setenv("SKILL_CACHE", str(tmp_path / "a cache"))
    server.content = _libri()
    checksum = "sha256:" + hashlib.sha256(server.content).hexdigest()
    wanted = Remote(server.remote.address, len(server.content), checksum)
    archive = archives.Archive("librispeech", "dev-clean", "LibriSpeech/dev-clean", wanted)
    monkeypatch.setattr(archives, "listed", lambda: [archive])
    job = Corpus(kind="librispeech", parts=("dev-clean",))
    prepare.run("libri", job, tmp_path / "m.csv")
    assert (
        "84-1-0000,libri,LibriSpeech/dev-clean/84/1/84-1-0000.flac,0,12345,84,en,SO IT IS"
        in (tmp_path / "m.csv").read_text()
    )
    assert not seen(tmp_path / "a cache/downloads"), "the archive is not kept"
    asked = len(server.requests)
    prepare.run("libri", job, tmp_path / "again.csv")
    assert len(server.requests) == asked
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "m.csv").read_bytes()


def test_all_archives_must_fit_before_the_first_is_fetched(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKILL_CACHE", str(tmp_path / "cache"))
    libri = [a for a in archives.listed() if a.part.startswith("train")]
    usage = remote.shutil._ntuple_diskusage(10**12, 10**12 - 10**11, 10**11)
    monkeypatch.setattr(remote.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(SkillError, match=r"train-other-500.*needs 10\d\.\d\d GB"):
        archives.ensure(libri, tmp_path / "corpora")


def test_the_table_lists_what_can_be_fetched() -> None:
    found = archives.listed()
    assert len({archive.folder for archive in found}) == len(found) >= 9
    for archive in found:
        assert checked_address(archive.remote.address).startswith("https://")
        algorithm, _, text = archive.remote.checksum.partition(":")
        assert len(text) == {"sha256": 64, "md5": 32}[algorithm]
        assert archive.remote.name == f"{archive.part}.tar.gz"
