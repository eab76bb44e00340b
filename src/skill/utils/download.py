"""One downloader: a file of known checksum arrives whole, or there is an error in words.

`fetch` asks for parts of the file at once and takes each up where it broke off, also after the
process was killed. What arrives is compared with its checksum and only then renamed to its name, so
a file of that name is always right.

SKILL_MIRROR, a folder or an address, is tried first under the file's name. With SKILL_OFFLINE set,
a folder is all that is tried. Addresses are https; http is for this machine itself.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import urljoin

from skill.utils.errors import SkillError
from skill.utils.remote import Patience, Remote, accept, locked, need_space
from skill.utils.transfer import Transfer

_PATIENCE = Patience()


def fetch(remote: Remote, folder: Path, parts: int = 4, patience: Patience = _PATIENCE) -> Path:
    """The file in `folder`, fetched unless it is there.

    Raises:
        SkillError: no source has the right file, there is no space, or the address is not https;
            the message has each source's reason. Nothing of that name is left in `folder`; parts
            that arrived stay hidden for the next try, unless their checksum was wrong.
    """
    algorithm = remote.checksum.partition(":")[0]
    if algorithm not in ("sha256", "md5"):
        raise SkillError(f"{remote.address}: the checksum {remote.checksum!r} is of no known kind")
    target = folder / remote.name
    with locked(folder / f".{remote.name}.lock"):
        if target.is_file() and target.stat().st_size == remote.size:
            return target
        said = []
        for place in _sources(remote):
            try:
                place(target, parts, patience)
                return target
            except SkillError as error:
                said.append(str(error))
        if os.environ.get("SKILL_OFFLINE"):
            said.append("SKILL_OFFLINE is set")
        raise SkillError(f"{remote.name} cannot be had: {'; '.join(said)}")


def _sources(remote: Remote) -> Iterator[Callable[[Path, int, Patience], None]]:
    """How to get the file from the mirror and from its source, in this order."""
    mirror, offline = os.environ.get("SKILL_MIRROR"), bool(os.environ.get("SKILL_OFFLINE"))
    addresses = [] if offline else [remote.address]
    if mirror and "://" not in mirror:
        yield lambda target, *_: _copy(remote, Path(mirror) / remote.name, target)
    elif mirror and not offline:
        addresses.insert(0, urljoin(mirror.rstrip("/") + "/", remote.name))
    for address in addresses:
        yield partial(_download, replace(remote, address=address))


def _download(remote: Remote, target: Path, parts: int, patience: Patience) -> None:
    Transfer(remote, target, patience).run(parts)


def _copy(remote: Remote, source: Path, target: Path) -> None:
    if not source.is_file():
        raise SkillError(f"{source} does not exist")
    need_space(target.parent, remote.size, remote.name)
    data = target.with_name(f".{target.name}.copy")
    try:
        shutil.copyfile(source, data)
        accept(remote, data, target, str(source))
    except OSError as error:
        raise SkillError(f"{source}: cannot be copied: {error.strerror or error}") from error
    finally:
        data.unlink(missing_ok=True)
