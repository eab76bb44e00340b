"""Archives: unpacked whole or not at all, whatever they hold; from the server to a manifest."""

import gzip
import hashlib
import io
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from download_server import Server, serving, visible

from skill.config.params import Corpus
from skill.data.corpora import archives, prepare
from skill.utils import disk
from skill.utils.download import Remote, checked_address
from skill.utils.errors import SkillError


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


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
        (packed(("../out", b"x")), "no folder"),
        (packed(("Libri/part/../../../out", b"x")), "outside|absolute|no path"),
        (packed(("/tmp/out", b"x")), "no folder"),
        (packed(("Libri/part/..\\out", b"x")), "outside|absolute|no path"),
        (packed(("Libri/part/l", "/etc/passwd")), "neither file"),
        (packed(("Libri/part/l", "../../.."), ("Libri/part/l/out", b"x")), "neither file"),
        (packed(("Libri/part/h", "/etc/passwd"), kind=tarfile.LNKTYPE), "neither file"),
        (packed(("Libri/part/d", ""), kind=tarfile.CHRTYPE), "neither file"),
        (packed(("Libri/part/big", bytes(20_000))), "more than 10000 bytes"),
        (packed(("other/big", bytes(20_000))), "more than 10000 bytes"),
        (packed(("Libri/other", b"x")), "no folder Libri/part"),
        (packed(("Libri/part/a", b"x"), ("Libri/part/a/b", b"y")), "cannot be unpacked|damaged"),
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


def test_headers_members_and_depth_are_bounded(tmp_path: Path, monkeypatch) -> None:
    deep = packed(("Libri/part/" + "d/" * 40 + "x", b"x"))
    info = tarfile.TarInfo("Libri/part/x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 32
    huge = gzip.compress(info.tobuf() + bytes(1024))
    many = packed(*((f"Libri/part/{number}", b"") for number in range(12)))
    monkeypatch.setattr(archives, "_MOST_MEMBERS", 10)
    for content, words in ((deep, "no path"), (huge, "a header of"), (many, "10 members")):
        with pytest.raises(SkillError, match=words):
            unpacked(tmp_path, content)


def test_the_checksum_of_gzip_is_compared(tmp_path: Path) -> None:
    content = bytearray(GOOD)
    content[-8] ^= 1
    with pytest.raises(SkillError, match="CRC"):
        unpacked(tmp_path, bytes(content))


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
    monkeypatch.setattr(archives, "read_archives", lambda: [archive])
    job = Corpus(kind="librispeech", parts=("dev-clean",))
    prepare.run("libri", job, tmp_path / "m.csv")
    assert (
        "84-1-0000,libri,LibriSpeech/dev-clean/84/1/84-1-0000.flac,0,12345,84,en,SO IT IS"
        in (tmp_path / "m.csv").read_text()
    )
    assert not visible(tmp_path / "a cache/downloads"), "the archive is not kept"
    asked = len(server.requests)
    prepare.run("libri", job, tmp_path / "again.csv")
    assert len(server.requests) == asked
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "m.csv").read_bytes()


def test_all_archives_must_fit_before_the_first_is_fetched(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKILL_CACHE", str(tmp_path / "cache"))
    libri = [a for a in archives.read_archives() if a.part.startswith("train")]
    usage = shutil._ntuple_diskusage(10**12, 10**12 - 10**11, 10**11)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(SkillError, match=r"train-other-500.*needs 10\d\.\d\d GB"):
        archives.ensure(libri, tmp_path / "corpora")


def test_the_table_lists_what_can_be_fetched() -> None:
    found = archives.read_archives()
    assert len({archive.folder for archive in found}) == len(found) >= 9
    for archive in found:
        assert checked_address(archive.remote.address).startswith("https://")
        algorithm, _, text = archive.remote.checksum.partition(":")
        assert len(text) == {"sha256": 64, "md5": 32}[algorithm]
        assert archive.remote.name == f"{archive.part}.tar.gz"
