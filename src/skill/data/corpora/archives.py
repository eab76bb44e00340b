"""Corpora that are free to fetch: archives of `data/corpora.csv`, unpacked below SKILL_CORPORA.

A folder appears under its name only when its archive was right and is unpacked whole. The archive
waits in `downloads/` of the folder in SKILL_CACHE (default `scratch`) and is deleted afterwards.
Only files and folders are taken out of an archive, with `tarfile`'s filter for data: links,
devices and paths that lead out of it are an error, and so is more than it can honestly hold.
"""

import gzip
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from skill.data.corpora.debian import cache
from skill.utils.disk import locked, need_space
from skill.utils.download import Remote, fetch
from skill.utils.errors import SkillError
from skill.utils.files import data_table

_COLUMNS = ("name", "kind", "part", "source", "bytes", "checksum", "folder")
_GROWTH = 1.2  # compressed audio hardly compresses: what an archive unpacks to, over its size
_OVERHEAD = 1 << 20  # of transcripts in small archives
_MOST_MEMBERS, _DEEPEST, _LONGEST_HEADER = 500_000, 32, 1 << 20


@dataclass(frozen=True)
class Archive:
    """An archive with the folder that is wanted of it, which keeps its place below the root."""

    kind: str
    part: str
    folder: str
    remote: Remote

    @property
    def unpacked(self) -> int:
        """Bytes that it may unpack to."""
        return int(self.remote.size * _GROWTH) + _OVERHEAD


def read_archives() -> list[Archive]:
    """The rows of `data/corpora.csv` that have a checksum.

    Raises:
        SkillError: the table is missing, or a row of it is wrong.
    """
    archives = []
    for row in data_table("corpora", _COLUMNS):
        if row["checksum"]:
            if not row["bytes"].isdecimal() or not row["folder"]:
                raise SkillError(f"data/corpora.csv: {row['name']}: bytes or folder are missing")
            remote = Remote(row["source"], int(row["bytes"]), row["checksum"])
            archives.append(Archive(row["kind"], row["part"], row["folder"], remote))
    return archives


def ensure(archives: Sequence[Archive], root: Path) -> None:
    """Fetch and unpack what is not below `root` yet.

    Raises:
        SkillError: no space for all of it, no source has an archive, or an archive is unsafe.
    """
    absent = [archive for archive in archives if not (root / archive.folder).is_dir()]
    if not absent:
        return
    downloads = cache() / "downloads"
    _need_room(absent, root, downloads)
    for archive in absent:
        name = archive.remote.name
        with locked(root / f".{name}.lock"):
            if (root / archive.folder).is_dir():  # made by the job that held the lock
                continue
            print(f"corpora: fetching {name} for {root / archive.folder}", file=sys.stderr)
            file = fetch(archive.remote, downloads)
            unpack(file, archive.folder, root, archive.unpacked)
            file.unlink()


def _need_room(absent: Sequence[Archive], root: Path, downloads: Path) -> None:
    """One archive at a time, and all that comes out of them."""
    what = ", ".join(archive.remote.name for archive in absent)
    unpacked = sum(archive.unpacked for archive in absent)
    largest = max(archive.remote.size for archive in absent)
    for place in (root, downloads):
        place.mkdir(parents=True, exist_ok=True)
    if root.stat().st_dev == downloads.stat().st_dev:
        need_space(root, unpacked + largest, what)
    else:
        need_space(root, unpacked, what)
        need_space(downloads, largest, what)


def unpack(archive: Path, folder: str, root: Path, limit: int) -> None:
    """Take `folder` out of a `.tar.gz`; it appears below `root` whole or not at all.

    Raises:
        SkillError: the archive is damaged, holds a link, a device, a path that leads out of it, too
            many members or more than `limit` bytes, or has no such folder.
    """
    for remnant in root.glob(f".unpack-{archive.name}-*"):  # of a run that was killed
        shutil.rmtree(remnant, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".unpack-{archive.name}-", dir=root) as temporary:
        try:
            with (
                gzip.open(archive) as content,
                tarfile.open(fileobj=cast(BinaryIO, _Headers(content))) as tar,
            ):
                for member in _checked(tar, limit):
                    if PurePosixPath(member.name).is_relative_to(folder):
                        tar.extract(member, temporary, filter="data")
                while content.read(1 << 20):  # to the end, where gzip's own checksum is compared
                    pass
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, ValueError) as error:
            raise SkillError(f"{archive.name}: damaged or unsafe: {error}") from error
        except OSError as error:
            raise SkillError(f"{archive.name}: cannot be unpacked: {error}") from error
        unpacked = Path(temporary) / folder
        if not unpacked.is_dir():
            raise SkillError(f"{archive.name}: holds no folder {folder}")
        (root / folder).parent.mkdir(parents=True, exist_ok=True)
        unpacked.rename(root / folder)


def _checked(tar: tarfile.TarFile, limit: int) -> Iterator[tarfile.TarInfo]:
    """The members of an archive; `tarfile.TarError` at the first that is out of bounds."""
    size = 0
    for number, member in enumerate(tar, 1):
        size += max(member.size, 0)
        if not (member.isfile() or member.isdir()):
            raise tarfile.TarError(f"{member.name!r} is neither file nor folder")
        if "\\" in member.name or member.name.count("/") > _DEEPEST:
            raise tarfile.TarError(f"{member.name[:99]!r} is no path of a corpus")
        if member.size < 0 or size > limit or number > _MOST_MEMBERS:
            raise tarfile.TarError(f"more than {limit} bytes or {_MOST_MEMBERS} members")
        yield member


class _Headers:
    """What `tarfile` reads from: a header that claims to be huge is an error."""

    def __init__(self, content: gzip.GzipFile) -> None:
        self.seek, self.tell, self._content = content.seek, content.tell, content

    def read(self, size: int) -> bytes:
        if size > _LONGEST_HEADER:
            raise tarfile.TarError(f"a header of {size} bytes")
        return self._content.read(size)
