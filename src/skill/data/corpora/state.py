"""What lies in the folder that a corpus is made from, so that the next run notices a change.

Of one's own recordings names, sizes and times count; of official corpora, which are large and stay
as they are, names only. LibriSpeech is fetched by the run itself and known by its checksums.
Imports no torch: the Snakefile imports this.
"""

import os
from functools import cache
from hashlib import sha256
from pathlib import Path

from skill.config.params import Corpus
from skill.data.corpora import debian
from skill.data.corpora.superb_files import FOLDERS

_PACKAGED = ("queen", "asterisk", "hedgewars")


def source_state(name: str, corpus: Corpus) -> str | None:
    """A hash of the folder that `corpus` is made from; None where it is made from none."""
    root = os.environ.get("SKILL_CORPORA")
    if not root or corpus.kind == "librispeech":
        return None
    if corpus.kind in FOLDERS:
        return _state(Path(root) / FOLDERS[corpus.kind], names_only=True)
    if corpus.kind != "folder" and corpus.kind not in _PACKAGED:
        return None
    place = Path(root) / name
    if corpus.kind in _PACKAGED and not place.is_dir():
        return _state(Path(root)) if debian.missing_tools() else None
    return _state(place)


@cache
def _state(place: Path, names_only: bool = False) -> str:
    digest = sha256(str(place.resolve()).encode(errors="surrogateescape"))
    for folder, folders, files in os.walk(place):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        for file in sorted(name for name in files if name[0] != "."):
            path = Path(folder, file)
            line = f"{path.relative_to(place)}"
            if not names_only:
                try:
                    facts = path.stat()
                except OSError:  # a link to nothing
                    continue
                line += f"\t{facts.st_size}\t{facts.st_mtime_ns}"
            digest.update(f"{line}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
