"""Results of a job that ended after its run had died: not recorded, they are taken over.

Snakemake removes the outputs of a job that it has no record of, and starts it again: hours, for a
training. So a job of a run leaves links to its outputs in its scratch folder, and the same job, of
the same parameters, inputs and code, puts them back as long as Snakemake has no later record.
"""

import hashlib
import os
import shutil
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from skill.utils.errors import SkillError
from skill.utils.files import canonical_json, read_json, sha256, write_json
from skill.utils.provenance import fingerprint

_KINDS = (".safetensors", ".csv", ".json")
_RECORDS = Path(".snakemake/metadata")


def identity(module: str, options: Mapping[str, Any]) -> str:
    """A hash of what a job depends on: its options, the files among them, and its code."""
    values: dict[str, Any] = {}
    for name, value in options.items():
        if name in ("output", "scratch"):
            continue
        values[name] = (
            [_content(one) for one in value] if isinstance(value, list) else _content(value)
        )
    text = canonical_json({"code": fingerprint(module), "options": values})
    return hashlib.sha256(text.encode()).hexdigest()


def _content(value: Any) -> str:
    return sha256(value) if isinstance(value, Path) and value.is_file() else str(value)


def keep(scratch: Path, output: Path, job: str) -> None:
    """Link the outputs, those of the same name as `output`, into the scratch folder."""
    folder = scratch / "finished"
    _empty(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [path for kind in _KINDS if (path := output.with_suffix(kind)).exists()]
    for path in paths:
        _link(path, folder / path.name)
    write_json(folder / "finished", {"job": job, "files": [path.name for path in paths]})


def take_over(scratch: Path, output: Path, job: str) -> bool:
    """Put outputs back that the same job made and nobody recorded; others are forgotten."""
    folder = scratch / "finished"
    note = folder / "finished"
    if not note.exists():
        return False
    try:
        content = read_json(note)
        names = [str(name) for name in content["files"]]
        is_same = content["job"] == job and all(Path(name).name == name for name in names)
    except (SkillError, KeyError, TypeError):  # damaged, or of another version: it is done again
        names, is_same = [], False
    record = _RECORDS / urlsafe_b64encode(str(output).encode()).decode()
    recorded = record.exists() and record.stat().st_mtime >= note.stat().st_mtime
    files = [folder / name for name in names]
    if recorded or not is_same or not all(path.is_file() for path in files):
        _empty(folder)
        return False
    output.parent.mkdir(parents=True, exist_ok=True)
    for path in files:
        _link(path, output.with_name(path.name))
    print(f"{output}: was finished by a run that ended before it took note", file=sys.stderr)
    return True


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _empty(folder: Path) -> None:
    paths: Iterable[Path] = folder.iterdir() if folder.is_dir() else ()
    for path in paths:
        path.unlink()
