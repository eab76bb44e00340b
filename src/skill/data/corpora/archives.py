"""Corpora that are free to fetch: archives of `data/corpora.csv`, unpacked below SKILL_CORPORA.

A folder appears under its name only when its archive was right and is unpacked whole. The archive
waits in `downloads/` of the folder in SKILL_CACHE (default `scratch`) and is deleted afterwards.
Only files and folders are taken out of an archive: links, devices, and paths that lead out of it
are an error, and so is more content than the archive can honestly hold.
"""

import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from skill.data.corpora.debian import cache
from skill.utils.download import fetch
from skill.utils.errors import SkillError
from skill.utils.files import data_table
from skill.utils.remote import Patience, Remote, locked, need_space

_GROWTH = 1.2  # compressed audio hardly compresses: what an archive unpacks to, over its size
_PATIENCE = Patience()
_OVERHEAD = 1 << 20  # of transcripts in small archives


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


def listed() -> list[Archive]:
    """The rows of `data/corpora.csv` that have a checksum.

    Raises:
        SkillError: the table is missing, or a row of it is wrong.
    """
    found = []
    for row in data_table("corpora"):
        if row["checksum"]:
            if not row["bytes"].isdecimal() or not row["folder"]:
                raise SkillError(f"data/corpora.csv: {row['name']}: bytes or folder are missing")
            remote = Remote(row["source"], int(row["bytes"]), row["checksum"])
            found.append(Archive(row["kind"], row["part"], row["folder"], remote))
    return found


def ensure(archives: Sequence[Archive], root: Path, patience: Patience = _PATIENCE) -> None:
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
            file = fetch(archive.remote, downloads, patience=patience)
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
    """Take `folder` out of a tar archive; it appears below `root` whole or not at all.

    Raises:
        SkillError: the archive is damaged, holds a link, a device, a path that leads out of it or
            more than `limit` bytes, or has no such folder.
    """
    for left in root.glob(f".unpack-{archive.name}-*"):  # of a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".unpack-{archive.name}-", dir=root) as temporary:
        try:
            with tarfile.open(archive, "r|*") as tar:
                _extract(tar, folder, Path(temporary), limit, archive.name)
        except (tarfile.TarError, EOFError, zlib.error, LZMAError, UnicodeError) as error:
            raise SkillError(f"{archive.name}: damaged: {error}") from error
        except OSError as error:
            raise SkillError(f"{archive.name}: cannot be unpacked: {error}") from error
        made = Path(temporary) / folder
        if not made.is_dir():
            raise SkillError(f"{archive.name}: holds no folder {folder}")
        (root / folder).parent.mkdir(parents=True, exist_ok=True)
        made.rename(root / folder)


def _extract(tar: tarfile.TarFile, folder: str, target: Path, limit: int, name: str) -> None:
    wanted, size = PurePosixPath(folder), 0
    for member in tar:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or "\\" in member.name:
            raise SkillError(f"{name}: unsafe: {member.name!r} leads out of it")
        if not (member.isfile() or member.isdir()):
            raise SkillError(f"{name}: unsafe: {member.name!r} is neither file nor folder")
        size += member.size
        if size > limit:
            raise SkillError(f"{name}: unsafe: it unpacks to more than {limit} bytes")
        if not path.is_relative_to(wanted):
            continue
        place = target / path
        if member.isdir():
            place.mkdir(parents=True, exist_ok=True)
            continue
        content = tar.extractfile(member)
        if content is None:
            raise SkillError(f"{name}: {member.name!r} has no content")
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as file:
            shutil.copyfileobj(content, file)
