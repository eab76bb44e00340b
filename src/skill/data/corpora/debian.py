"""Files out of Debian packages, without root and without installing anything.

`apt-get update` writes its lists to a private folder and `apt-get download` fetches the package;
only the listed files are taken out of it, and each is compared with the SHA-256 in
`data/checksums.csv`. The sum is of the file, not of the package, so that every Debian or Ubuntu
release that carries the same recordings serves. What ends in `.gz` is unpacked first.

Files land in `packages/` of the folder in SKILL_CACHE (default `scratch`). They are moved there
only when complete and right, so an interruption leaves nothing behind that looks finished.
"""

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from skill.utils.disk import locked, need_space
from skill.utils.errors import SkillError
from skill.utils.files import data_table, sha256

_TOOLS = ("apt-get", "dpkg-deb")
_ELSE = (
    "put audio into a folder with the corpus's name and set SKILL_CORPORA to the folder around it"
)
_LARGEST_FILE = 1 << 30  # bytes
_SPACE = 400 << 20  # bytes: the largest package with what is taken out of it


def cache() -> Path:
    """The folder for what can be fetched or computed again."""
    return Path(os.environ.get("SKILL_CACHE") or "scratch")


def missing_tools() -> list[str]:
    """Names of the Debian tools that this system lacks."""
    return [tool for tool in _TOOLS if shutil.which(tool) is None]


def is_cached(names: Sequence[str]) -> bool:
    """Whether all these packages' files are in the cache."""
    return all((cache() / "packages" / name).is_dir() for name in names)


def checksums() -> dict[str, dict[str, str]]:
    """SHA-256 by package and path, from `data/checksums.csv` of the repository."""
    table: dict[str, dict[str, str]] = {}
    for row in data_table("checksums", ("package", "path", "sha256")):
        table.setdefault(row["package"], {})[row["path"]] = row["sha256"]
    return table


def files_of(names: Sequence[str]) -> dict[str, dict[str, Path]]:
    """The listed files of the packages, fetched once: package to path inside to path here.

    Raises:
        SkillError: no Debian tools, no network, no disk space, or a file that is missing from the
            package or not the one that is listed.
    """
    table = checksums()
    for name in names:
        if name not in table:
            raise SkillError(f"{name}: no file of this package is listed in data/checksums.csv")
    home = cache() / "packages"
    if not is_cached(names):  # a cache that is complete may be read-only
        with locked(home / ".lock"):
            for remnant in home.glob(".fetch-*"):  # of a run that was killed
                shutil.rmtree(remnant, ignore_errors=True)
            absent = [name for name in names if not (home / name).is_dir()]
            if absent:
                _fetch(absent, table, home)
    files_by_name = {name: {path: home / name / path for path in table[name]} for name in names}
    for name, files in files_by_name.items():
        for inside, path in files.items():
            if not path.is_file():
                raise SkillError(f"{path} is missing: delete {home / name} and start again")
            if sha256(path) != table[name][inside]:
                raise SkillError(
                    f"{path} is not the file of data/checksums.csv: delete {home / name} and start "
                    "again"
                )
    return files_by_name


def _fetch(names: Sequence[str], table: Mapping[str, Mapping[str, str]], home: Path) -> None:
    missing = missing_tools()
    if missing:
        raise SkillError(f"no {' and no '.join(missing)} on this system: {_ELSE}")
    need_space(home, _SPACE, f"fetching {', '.join(names)}")
    print(f"corpora: getting Debian packages: {', '.join(names)}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=home) as temporary:
        archives = _download(names, Path(temporary).resolve())
        for name in names:
            unpacked = Path(temporary) / name
            _unpack(archives[name], table[name], unpacked)
            unpacked.rename(home / name)
            archives[name].unlink()


def _download(names: Sequence[str], work: Path) -> dict[str, Path]:
    """The packages' archives by name, through the system's own sources and keys."""
    lists, parts = work / "lists" / "partial", work / "cache" / "archives" / "partial"
    lists.mkdir(parents=True)
    parts.mkdir(parents=True)
    options = [
        f"Dir::State::Lists={lists.parent}",
        f"Dir::Cache={parts.parents[1]}",
        "Debug::NoLocking=true",
        "APT::Sandbox::User=",
        "Acquire::Retries=3",
    ]
    flags = [word for option in options for word in ("-o", option)]
    output = ""
    for words in (["update"], ["download", *names]):
        process = subprocess.run(
            ["apt-get", "--quiet", *flags, *words],
            cwd=work,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        )
        output += process.stdout + process.stderr
    archives = {path.name.partition("_")[0]: path for path in work.glob("*.deb")}
    absent = [name for name in names if name not in archives]
    if not absent:
        return archives
    lines = ["it said nothing"]
    lines += [line for line in output.splitlines() if line.startswith(("E:", "W:", "Err:"))]
    if "No space left" in output:
        problem = f"no disk space: {', '.join(absent)} could not be written to {work}"
    elif any(
        sign in output for sign in ("resolving", "resolve", "connect", "Network", "timed out")
    ):
        problem = f"no network: {', '.join(absent)} could not be fetched; {_ELSE}"
    else:
        problem = (
            f"{absent[0]}: apt-get does not find this package ({lines[-1]}); "
            f"add the distribution's full archive (Debian `main`, Ubuntu `universe`), or {_ELSE}"
        )
    raise SkillError("\n".join([problem, *lines[1:]]))


def _unpack(archive: Path, names: Mapping[str, str], folder: Path) -> None:
    """Take the wanted files out of `archive`; nothing else in it is written anywhere."""
    left = dict(names)
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE
    ) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                for member in tar:
                    path = PurePosixPath(member.name).as_posix().removeprefix("./")
                    path = path.removesuffix(".gz")
                    if path not in left or not member.isfile():
                        continue
                    if member.size > _LARGEST_FILE:
                        raise tarfile.TarError(f"{path} has {member.size} bytes")
                    content = tar.extractfile(member).read()  # type: ignore[union-attr]
                    if member.name.endswith(".gz"):
                        with gzip.open(io.BytesIO(content)) as packed:
                            content = packed.read(_LARGEST_FILE)  # more has another checksum
                    if hashlib.sha256(content).hexdigest() != left.pop(path):
                        raise SkillError(
                            f"{archive.name}: {path} is not the file that data/checksums.csv "
                            "lists (wrong SHA-256)"
                        )
                    target = folder / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(content)
        except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise SkillError(f"{archive.name}: not a readable Debian package: {error}") from error
        except OSError as error:
            raise SkillError(f"{folder}: cannot be written: {error.strerror}") from error
        finally:
            process.kill()
    if left:
        raise SkillError(f"{archive.name}: {min(left)} is not in this version of the package")
