"""The downloader against a server that misbehaves: right bytes or a clear error, never a half."""

import hashlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from download_server import CONTENT, Handler, Server, serving, visible

from skill.utils import disk
from skill.utils.download import Remote, RetryPolicy, checked_address, fetch
from skill.utils.errors import SkillError

ROOT = Path(__file__).parents[2]
QUICK = RetryPolicy(stall=0.3, slowest=1.0, tries=4, first_wait=0.01, longest_wait=0.1)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("SKILL_MIRROR", "SKILL_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving() as running:
        yield running


def refused(server: Server, folder: Path, words: str) -> None:
    """Fetching fails with these words and leaves nothing that looks finished."""
    with pytest.raises(SkillError, match=words) as error:
        fetch(server.remote, folder, QUICK)
    assert "a.tar.gz" in str(error.value)
    assert not visible(folder)


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    path = fetch(server.remote, tmp_path / "a folder", QUICK)
    assert path.read_bytes() == CONTENT
    assert fetch(server.remote, tmp_path / "a folder") == path
    assert server.requests == [0]
    assert {p.name for p in path.parent.iterdir()} <= {"a.tar.gz", ".a.tar.gz.lock"}


def test_md5_serves_where_a_publisher_has_nothing_else(server: Server, tmp_path: Path) -> None:
    remote = replace(server.remote, checksum="md5:" + hashlib.md5(CONTENT).hexdigest())
    assert fetch(remote, tmp_path, QUICK).read_bytes() == CONTENT
    with pytest.raises(SkillError, match="no known kind"):
        fetch(replace(remote, checksum="crc:0"), tmp_path / "b", QUICK)


def test_connections_that_are_cut_again_and_again(server: Server, tmp_path: Path) -> None:
    server.behave = lambda handler, first: first < 900_000 and handler.part(first, 90_000)
    assert fetch(server.remote, tmp_path, QUICK).read_bytes() == CONTENT
    assert server.requests == [*range(0, 1_000_000, 90_000)][: len(server.requests)]
    assert len(server.requests) > 10


@pytest.mark.parametrize("forgets", [0, 2])
def test_a_server_without_ranges(server: Server, tmp_path: Path, forgets: int) -> None:
    def cut(handler: Handler, first: int) -> bool:
        server.ranges = len(server.requests) < forgets
        return len(server.requests) <= 2 and handler.part(first, 300_000)

    server.behave = cut
    assert fetch(server.remote, tmp_path, QUICK).read_bytes() == CONTENT
    assert server.requests[-1] == 0


def test_wrong_bytes(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    refused(server, tmp_path, "wrong bytes: the checksum is not sha256:")
    server.content = CONTENT
    assert fetch(server.remote, tmp_path, QUICK).read_bytes() == CONTENT


@pytest.mark.parametrize("content", [CONTENT + b"x", CONTENT[:-5]])
def test_a_file_of_another_length(server: Server, tmp_path: Path, content: bytes) -> None:
    server.content = content
    refused(server, tmp_path, f"the file has {len(content)} bytes, not {len(CONTENT)}")


@pytest.mark.parametrize(("code", "tries"), [(401, 1), (403, 1), (404, 1), (429, 4), (500, 4)])
def test_refusals_are_final_and_busy_servers_are_asked_again(
    server: Server, tmp_path: Path, code: int, tries: int
) -> None:
    def answer(handler: Handler, first: int) -> bool:
        handler.send_error(code)
        return True

    server.behave = answer
    refused(server, tmp_path, f"the server says {code}")
    assert len(server.requests) == tries
    server.requests.clear()
    server.behave = lambda handler, first: len(server.requests) < tries and answer(handler, first)
    if tries > 1:
        assert fetch(server.remote, tmp_path, QUICK).read_bytes() == CONTENT


@pytest.mark.parametrize("how", ["silent", "slow"])
def test_a_server_that_stalls_is_given_up_and_its_part_kept(
    server: Server, tmp_path: Path, how: str
) -> None:
    released = threading.Event()

    def stall(handler: Handler, first: int) -> bool:
        handler.part(first, 50_000)
        while how == "slow" and not released.wait(0.05):
            handler.wfile.write(CONTENT[first + 50_000 : first + 50_010])
            first += 10
        return released.wait(20)

    server.behave = stall
    policy = replace(QUICK, slowest=1e6)
    try:
        with pytest.raises(SkillError, match=r"(sends nothing|bytes a second); gave up"):
            fetch(server.remote, tmp_path, policy)
    finally:
        released.set()
    assert not visible(tmp_path)
    server.behave = lambda *_: False
    server.requests.clear()
    assert fetch(server.remote, tmp_path, QUICK).read_bytes() == CONTENT
    assert len(server.requests) == 1 and server.requests[0] >= 200_000


def test_nobody_answers(server: Server, tmp_path: Path) -> None:
    server.shutdown()
    server.server_close()
    refused(server, tmp_path, "gave up after 4 tries")


def _fetch_in_child(remote: Remote, folder: Path) -> None:
    fetch(remote, folder, replace(QUICK, stall=30.0))


@pytest.mark.parametrize("changed", ["", "bytes", "tag"])
def test_a_killed_download_goes_on_where_it_was(
    server: Server, tmp_path: Path, changed: str
) -> None:
    """SIGKILL in the middle; what had arrived is used, unless it is damaged or the file changed."""
    go = threading.Event()
    server.behave = lambda handler, first: handler.part(first, 500_000) and go.wait(20)
    child = multiprocessing.get_context("fork").Process(
        target=_fetch_in_child, args=(server.remote, tmp_path)
    )
    child.start()
    part = tmp_path / ".a.tar.gz.part"
    deadline = time.monotonic() + 20
    while not part.exists() or part.stat().st_size < 500_000:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.kill()
    child.join()
    assert not visible(tmp_path)
    go.set()
    server.behave = lambda *_: False
    server.requests.clear()
    if changed == "tag":
        server.tag = '"two"'
    if changed == "bytes":
        with part.open("r+b") as file:
            file.write(bytes(10))
    assert fetch(server.remote, tmp_path, QUICK).read_bytes() == CONTENT
    assert server.requests == {"": [500_000], "bytes": [500_000, 0], "tag": [0]}[changed]


def test_two_jobs_fetch_a_file_once(server: Server, tmp_path: Path) -> None:
    server.behave = lambda *_: bool(time.sleep(0.2))
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=_fetch_in_child, args=(server.remote, tmp_path)) for _ in "123"]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(30)
        assert job.exitcode == 0
    assert server.requests == [0]


@pytest.mark.parametrize("suffix", [".lock", ".part", ".part.tag", ".tag", ".copy", ""])
@pytest.mark.parametrize("lay", [os.symlink, os.link])
@pytest.mark.parametrize("mirrored", [True, False])
def test_links_that_others_laid_are_not_followed(
    server: Server, tmp_path: Path, suffix: str, lay: Callable[..., None], mirrored: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    victim, folder, mirror = tmp_path / "victim", tmp_path / "cache", tmp_path / "mirror"
    victim.write_bytes(b"precious")
    folder.mkdir()
    mirror.mkdir()
    if mirrored:
        (mirror / "a.tar.gz").write_bytes(CONTENT)
        monkeypatch.setenv("SKILL_MIRROR", str(mirror))
    lay(victim, folder / f"{'.' if suffix else ''}a.tar.gz{suffix}")
    try:
        assert fetch(server.remote, folder, QUICK).read_bytes() == CONTENT
    except SkillError as error:
        assert suffix == ".lock" and ".lock" in str(error)
    assert victim.read_bytes() == b"precious"


def test_a_file_of_the_right_size_is_not_believed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(bytes(len(CONTENT)))
    assert fetch(server.remote, tmp_path, QUICK).read_bytes() == CONTENT


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_cache_that_cannot_be_written_serves_or_is_named(server: Server, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    fetch(server.remote, cache, QUICK)
    for path in cache.glob(".*"):
        path.unlink()
    cache.chmod(0o500)
    try:
        assert fetch(server.remote, cache, QUICK).read_bytes() == CONTENT
        with pytest.raises(SkillError, match=r"b\.tar\.gz.*cannot be"):
            fetch(replace(server.remote, address=server.remote.address.replace("a.", "b.")), cache)
    finally:
        cache.chmod(0o700)


def test_mirror_folder_comes_first_and_serves_offline(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = tmp_path / "a mirror"
    mirror.mkdir()
    monkeypatch.setenv("SKILL_MIRROR", str(mirror))
    assert fetch(server.remote, tmp_path / "1", QUICK).read_bytes() == CONTENT
    assert server.requests, "what the mirror lacks comes from the source"
    server.requests.clear()
    monkeypatch.setenv("SKILL_OFFLINE", "1")
    with pytest.raises(SkillError, match=r"a mirror/a.tar.gz does not exist; SKILL_OFFLINE is set"):
        fetch(server.remote, tmp_path / "2", QUICK)
    (mirror / "a.tar.gz").write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(SkillError, match="wrong bytes"):
        fetch(server.remote, tmp_path / "2", QUICK)
    assert not visible(tmp_path / "2")
    (mirror / "a.tar.gz").write_bytes(CONTENT)
    assert fetch(server.remote, tmp_path / "2", QUICK).read_bytes() == CONTENT
    assert not server.requests


def test_mirror_address(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = replace(server.remote, address="https://example.invalid/x/a.tar.gz")
    monkeypatch.setenv("SKILL_MIRROR", f"http://127.0.0.1:{server.server_port}/")
    assert fetch(elsewhere, tmp_path, QUICK).read_bytes() == CONTENT
    monkeypatch.setenv("SKILL_OFFLINE", "1")
    with pytest.raises(SkillError, match="SKILL_OFFLINE is set"):
        fetch(elsewhere, tmp_path / "b", QUICK)


@pytest.mark.parametrize("code", [403, 500])
def test_passwords_are_in_no_message(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    server.behave = lambda handler, _: handler.send_error(code) is None
    address = f"http://me:hunter2@127.0.0.1:{server.server_port}/"
    monkeypatch.setenv("SKILL_MIRROR", address)
    for remote in (server.remote, replace(server.remote, address="ftp://me:hunter2@x/a.tar.gz")):
        with pytest.raises(SkillError) as error:
            fetch(remote, tmp_path, QUICK)
        assert "hunter2" not in str(error.value) and "***@127.0.0.1" in str(error.value)


def test_disk_space_is_checked_before_the_first_byte(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 10**5, 10**5)  # type: ignore[attr-defined]
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage)
    refused(server, tmp_path, r"no disk space: a.tar.gz needs 0.00 GB")
    assert not server.requests


@pytest.mark.parametrize(
    "address",
    ["http://example.org/a", "ftp://example.org/a", "file:///etc/passwd", "a", "https://", "http://[",
     "http://localhost.example.org/a", "HTTP://10.0.0.1/a"],
)  # fmt: skip
def test_addresses_that_are_refused(address: str) -> None:
    with pytest.raises(SkillError, match="address"):
        checked_address(address)


@pytest.mark.parametrize("address", ["https://a.org/b", "http://localhost:80/a", "http://[::1]:9/"])
def test_addresses_that_are_allowed(address: str) -> None:
    assert checked_address(address) == address


@pytest.mark.parametrize("target", ["http://example.org/a", "file:///etc/passwd", ""])
def test_redirections(server: Server, tmp_path: Path, target: str) -> None:
    def redirect(handler: Handler, _: int) -> bool:
        if handler.path == "/b":
            return False
        handler.send_response(302)
        handler.send_header("Location", target or "/b")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    server.behave = redirect
    if target:
        refused(server, tmp_path, "only https")
    else:
        assert fetch(server.remote, tmp_path, QUICK).read_bytes() == CONTENT


READ_ONLY = """
mount -t tmpfs none "$1" && printf right > "$1/a.tar.gz" && mount -o remount,ro "$1" || exit
"$2" - "$1" <<'END'
import hashlib, sys
from pathlib import Path
from skill.utils.download import Remote, fetch
from skill.utils.errors import SkillError

for name in ("a.tar.gz", "b.tar.gz"):
    checksum = "sha256:" + hashlib.sha256(b"right").hexdigest()
    try:
        print(fetch(Remote(f"https://localhost:9/{name}", 5, checksum), Path(sys.argv[1])).name)
    except SkillError as error:
        print(error)
END
"""


def test_a_read_only_cache_serves_what_it_has(tmp_path: Path) -> None:
    """On a file system that is mounted so; what is missing is one sentence."""
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], check=False).returncode:
        pytest.skip("no mounts of one's own here")
    done = subprocess.run(
        [*alone, "sh", "-c", READ_ONLY, "sh", str(tmp_path), sys.executable],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    first, second = done.stdout.splitlines()
    assert first == "a.tar.gz", done.stderr
    assert second.endswith(".b.tar.gz.lock: cannot be locked: Read-only file system")
