"""Texts that people have saved: with or without a byte order mark, with any ends of lines."""

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from skill.utils.errors import SkillError

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_MOST_BYTES = 1 << 30
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: str | PathLike[str]) -> str:
    """The text of a file in UTF-8, or in UTF-16 where a mark says so.

    Raises:
        SkillError: no such file, not a regular one, above 1 GiB, or no text; the message names it.
    """
    place = Path(path)
    if not place.is_file():
        raise SkillError(f"{path}: {'not a regular file' if place.exists() else 'no such file'}")
    try:
        if place.stat().st_size > _MOST_BYTES:
            raise SkillError(f"{path}: more than {_MOST_BYTES >> 30} GiB")
        content = place.read_bytes()
        codec = next((codec for mark, codec in _MARKS if content.startswith(mark)), "utf-8")
        text = content.decode(codec)
    except OSError as error:
        raise SkillError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise SkillError(f"{path}: not UTF-8 text (byte {error.start})") from error
    if "\0" in text:
        raise SkillError(f"{path}: not text: it holds NUL characters")
    return text


def read_lines(path: str | PathLike[str]) -> list[str]:
    """The lines of a text, whatever ends them."""
    text = read_text(path).replace("\r\n", "\n").replace("\r", "\n")
    return text.removesuffix("\n").split("\n") if text else []


def read_fields(
    path: str | PathLike[str], least: int, most: int | None = None
) -> Iterator[tuple[str, list[str]]]:
    """The words of each line that is not blank, with where it is: `FILE, line N`.

    Raises:
        SkillError: a line has fewer than `least` words, or more than `most`.
    """
    for number, line in enumerate(read_lines(path), 1):
        words, where = line.split(), f"{path}, line {number}"
        if words and not least <= len(words) <= (most or len(words)):
            raise SkillError(f"{where}: {len(words)} words instead of {most or least}")
        if words:
            yield where, words


def escaped_cell(text: str) -> str:
    """`text` as a table holds it: what a spreadsheet would run as a formula has a ' before it.

    Numbers stay as they are. `read_csv` takes the mark away again.
    """
    if not _FORMULA.match(text):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def _unescaped(cell: Any) -> Any:
    """The inverse of `escaped_cell`; what is missing or too much in a row stays as it is."""
    escaped = isinstance(cell, str) and cell.startswith("'") and _FORMULA.match(cell)
    return cell[1:] if escaped else cell


def printable(text: str) -> str:
    """`text` with a mark in place of each control character, which would move a terminal's cursor.

    Ends of lines stay.
    """
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def masked(text: str) -> str:
    """`text` with `***` in place of names, passwords and queries (signatures) in addresses."""
    text = re.sub(r"(?<=://)[^/?#\s]*@", "***@", text)
    return re.sub(r"(://[^\s?#'\"]*\?)[^\s#'\"]+", r"\1***", text)


def read_csv(path: str | PathLike[str], columns: Sequence[str] = ()) -> list[dict[str, str]]:
    """The rows of a table.

    Raises:
        SkillError: the file is missing or damaged, or one of `columns` is missing, or a row has
            fewer; the message names the file, and the row.
    """
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
        rows = list(reader)
    except csv.Error as error:
        raise SkillError(f"{path}: not a readable CSV file: {error}") from error
    rows = [{name: _unescaped(cell) for name, cell in row.items()} for row in rows]
    names = reader.fieldnames or []
    missing = [name for name in columns if name not in names]
    if missing:
        there = ", ".join(names)[:200]
        raise SkillError(f"{path}: no column {', '.join(missing)}; there are {there}")
    for number, row in enumerate(rows, 2):
        for name in columns:
            if row[name] is None:
                raise SkillError(f"{path}, row {number}: no {name}")
    return rows
