"""Whole files or none: everything is written beside its place and renamed; bytes are stable."""

import csv
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skill.utils.errors import SkillError
from skill.utils.text import escaped_cell
from skill.utils.text import read_csv as read_csv

_JSON_BYTES = 1 << 28
_INTACT: set[tuple[str | int, ...]] = set()  # versions of files whose checksums were right


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it on success and vanishes on error.

    The temporary name keeps the suffix of `path`, so that writers that look at it work.
    Missing parent folders are made. A full disk, a folder that cannot be written to, or a folder,
    pipe or device in the place of `path`, is a `SkillError` that names it.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        if path.exists() and not path.is_file():  # renaming would put a file in its place
            raise OSError(errno.EINVAL, "it is a folder, a pipe or a device")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise SkillError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder whose files stand in the folder `path` on success, none on error.

    A new folder appears at once. In one that is there already, files of the same names are
    replaced and others stay.

    Raises:
        SkillError: `path` is a file, or cannot be written; the message names it.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path if path.is_dir() else path.parent
        temporary = Path(tempfile.mkdtemp(prefix=".export-", dir=beside))
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is a file")
        yield temporary
        if beside is path:
            for file in sorted(temporary.iterdir()):
                file.replace(path / file.name)
        else:
            temporary.chmod(0o777 & ~_umask())
            temporary.rename(path)
    except OSError as error:
        raise SkillError(f"{path}: cannot be written: {error.strerror or error}") from error
    except SkillError as error:
        raise SkillError(str(error).replace(str(temporary), str(path))) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def canonical_json(value: Any) -> str:
    """One line, sorted keys: the same value gives the same text, whatever order it was made in."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _round_floats(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {str(key): _round_floats(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_round_floats(item) for item in value]
    return value


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON with sorted keys and floats of six significant digits: stable bytes."""
    text = json.dumps(_round_floats(value), sort_keys=True, ensure_ascii=False, indent=2)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file; `SkillError` names the file where it is missing or damaged."""
    refuse_pointer(path)
    try:
        if (size := Path(path).stat().st_size) > _JSON_BYTES:
            raise ValueError(f"{size} bytes are more than any has")
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except RecursionError as error:
        raise SkillError(f"{path}: not a readable JSON file: nested too deeply") from error
    except (OSError, ValueError) as error:
        raise SkillError(f"{path}: not a readable JSON file: {error}") from error


def write_csv(
    path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]], columns: list[str]
) -> None:
    """Write a table with `columns` in that order; floats with six significant digits.

    A text that a spreadsheet would take for a formula is escaped (`skill.utils.text.escaped_cell`).

    Raises:
        ValueError: a row has a column that is not listed.
    """
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: _cell(value) for key, value in row.items()})


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}"
    return escaped_cell(value) if isinstance(value, str) else value


def checkout_path(source: str) -> Path:
    """`source` below the working directory or, where nothing is there, in the checkout."""
    path = Path(source)
    return path if path.exists() else Path(__file__).parents[3] / path


def data_table(name: str, columns: Sequence[str] = ()) -> list[dict[str, str]]:
    """The rows of the checkout's `data/NAME.csv`, which has `columns`.

    Raises:
        SkillError: it is damaged, or missing: this is no clone.
    """
    path = checkout_path(f"data/{name}.csv")
    if not path.is_file():
        raise SkillError(f"data/{name}.csv is missing: work in a clone of the repository")
    return read_csv(path, columns)


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Any], header: Any, **marks: str
) -> None:
    """Write tensors as safetensors, sorted by name.

    The metadata are `header` as JSON, with the checksums that `read_tensors` compares, and `marks`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    ordered = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    # Inside the header: safetensors writes several entries of metadata in any order.
    sums = {"header": _text_sum(canonical_json(header)), "tensors": _tensor_sum(ordered)}
    text = canonical_json({**header, "sha256": sums})
    with replacing(path) as temporary:
        try:
            save_file(ordered, temporary, metadata={"skill": text} | marks)
        except SafetensorError as error:
            raise SkillError(f"{path}: cannot be written (is the disk full?): {error}") from error


def _text_sum(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _tensor_sum(tensors: Mapping[str, Any]) -> str:
    """SHA-256 of all tensors: names, kinds, shapes and bytes."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(canonical_json([name, str(tensor.dtype), list(tensor.shape)]).encode())
        for part in tensor.reshape(-1).split(1 << 24):  # [N], whatever the shape
            digest.update(part.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_state(path: str | os.PathLike[str], state: Any) -> None:
    """Write what `torch.load(…, weights_only=True)` reads."""
    import torch

    with replacing(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:
            raise SkillError(f"{path}: cannot be written (is the disk full?): {error}") from error


def refuse_pointer(path: str | os.PathLike[str]) -> None:
    """Raise `SkillError` where Git LFS left a note in place of the file."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(64)
    except OSError:
        return
    if start.startswith(b"version https://git-lfs"):
        raise SkillError(
            f"{path}: a pointer of Git LFS, not the file itself: run `git lfs pull` in its clone"
        )


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The texts in a safetensors file's header, without reading the tensors."""
    from safetensors import SafetensorError, safe_open

    refuse_pointer(path)
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise SkillError(f"{path}: not a readable safetensors file: {error}") from error


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON header that `write_tensors` stored, without reading the tensors.

    Raises:
        SkillError: no such file, another kind of file, or not the header that was written.
    """
    return _header_and_sum(path)[0]


def _header_and_sum(path: str | os.PathLike[str]) -> tuple[dict[str, Any], str | None]:
    """The header, and the checksum of the tensors; files of before there was one have none."""
    metadata = read_metadata(path)
    if "skill" not in metadata:
        raise SkillError(f"{path}: no `skill` header; this file was not written by skill")
    try:
        header = json.loads(metadata["skill"])
    except (ValueError, RecursionError) as error:
        raise SkillError(f"{path}: the `skill` header is damaged: {error}") from error
    if not isinstance(header, dict):
        raise SkillError(f"{path}: the `skill` header is no mapping")
    if "sha256" not in header:
        return header, None
    sums = header.pop("sha256")
    if not isinstance(sums, dict) or sums.get("header") != _text_sum(canonical_json(header)):
        raise SkillError(f"{path}: damaged: the `skill` header is not what was written")
    return header, str(sums.get("tensors"))


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors and the header of a file that `write_tensors` wrote.

    The checksum of the tensors is compared once for each version of a file.

    Raises:
        SkillError: as `read_header`, or not the tensors that were written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    header, digest = _header_and_sum(path)
    try:
        tensors = load_file(path)
        version: tuple[str | int, ...] = (str(path), *_version(path))
    except (OSError, SafetensorError) as error:
        raise SkillError(f"{path}: not a readable safetensors file: {error}") from error
    if digest is not None and version not in _INTACT:
        if digest != _tensor_sum(tensors):
            raise SkillError(f"{path}: damaged: the tensors are not what was written")
        _INTACT.add(version)
    return tensors, header


def _version(path: str | os.PathLike[str]) -> tuple[int, ...]:
    stat = Path(path).stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
