"""Manifests: one row per utterance, with where its samples are, who speaks, and what is said.

`path` is an audio file, relative to the working directory or, for corpora that are read where they
lie, to the folder in SKILL_CORPORA. `start` and `samples` count samples at 16 kHz.
"""

import csv
import re
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, fields
from os import PathLike

from skill.utils.errors import SkillError
from skill.utils.files import replacing
from skill.utils.text import read_csv

RATE = 16_000
LONGEST_SECONDS = 3 * 3600  # of a recording, and so of an utterance
SPLITS = ("train", "dev", "test")
KINDS = ("human", "synthetic")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Utterance:
    """One row of a manifest. Empty `speaker` or `text`: not known."""

    id: str
    corpus: str
    path: str
    start: int
    samples: int
    speaker: str = ""
    language: str = "en"
    text: str = ""
    split: str = "train"
    kind: str = "human"

    @property
    def seconds(self) -> float:
        return self.samples / RATE


COLUMNS = [field.name for field in fields(Utterance)]


def write_manifest(path: str | PathLike[str], utterances: Iterable[Utterance]) -> None:
    """Write a manifest in the given order; the same utterances give the same bytes.

    Raises:
        SkillError: `read_manifest` would refuse it; the message names the utterance.
    """
    with replacing(path) as temporary, Rows(temporary) as rows:
        for utterance in utterances:
            rows.write(utterance)
        if not rows.ids:
            raise SkillError(f"{path}: the manifest is empty: no utterance")


def read_manifest(path: str | PathLike[str]) -> list[Utterance]:
    """Read and check a manifest.

    Raises:
        SkillError: the file is missing, damaged or empty, a column is missing or unknown, a value
            is impossible, or an id occurs twice; the message names the file and the line.
    """
    rows = read_csv(path)
    if not rows:
        raise SkillError(f"{path}: the manifest is empty: no utterance")
    missing = [name for name in COLUMNS if name not in rows[0] and name != "kind"]
    unknown = [name for name in rows[0] if name is not None and name not in COLUMNS]
    if missing or unknown:
        said = f"lacks the columns {', '.join(missing)}" if missing else ""
        said += f"{' and ' if said and unknown else ''}"
        said += f"has unknown columns {', '.join(unknown)}" if unknown else ""
        raise SkillError(f"{path}: the manifest {said}")
    utterances: list[Utterance] = []
    ids: set[str] = set()
    for number, row in enumerate(rows, 2):
        where = f"{path}, row {number}"
        if None in row or None in row.values():
            raise SkillError(f"{where}: wrong number of columns")
        try:
            start, samples = int(row["start"]), int(row["samples"])
        except ValueError:
            raise SkillError(f"{where}: start and samples must be whole numbers") from None
        numbers = {"start": start, "samples": samples, "kind": row.get("kind") or "human"}
        utterance = Utterance(**{**row, **numbers})  # type: ignore[arg-type]
        problem = _problem(utterance, ids)
        if problem:
            raise SkillError(f"{where}: {problem}")
        ids.add(utterance.id)
        utterances.append(utterance)
    return utterances


def is_writable(text: str) -> bool:
    """Whether `text` is UTF-8 without control characters, as names in a manifest are."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return not _CONTROL.search(text)


def _problem(u: Utterance, ids: AbstractSet[str]) -> str:
    """What is wrong with an utterance among those with `ids`, or nothing."""
    if u.start < 0 or u.samples <= 0:
        return "start must not be negative, and samples must be above 0"
    if u.samples > LONGEST_SECONDS * RATE:
        return f"longer than {LONGEST_SECONDS / 3600:g} hours"
    for key, value, allowed in (("split", u.split, SPLITS), ("kind", u.kind, KINDS)):
        if value not in allowed:
            return f"{key} is {value!r}, not one of {', '.join(allowed)}"
    if not u.id or not u.path:
        return "id and path must not be empty"
    if not is_writable(f"{u.id}{u.corpus}{u.path}{u.speaker}{u.language}{u.text}"):
        return "it holds a control character, or no Unicode"
    return f"the id {u.id} occurs twice" if u.id in ids else ""


def usable(
    manifests: Iterable[str | PathLike[str]], shortest: float, longest: float, split: str
) -> list[Utterance]:
    """The utterances of a split that last from `shortest` to `longest` seconds.

    Raises:
        SkillError: there is none.
    """
    paths = list(manifests)
    utterances = [
        utterance
        for path in paths
        for utterance in read_manifest(path)
        if utterance.split == split and shortest <= utterance.seconds <= longest
    ]
    if not utterances:
        names = ", ".join(str(path) for path in paths)
        raise SkillError(f"{names}: no {split} utterance of {shortest} to {longest} seconds")
    return utterances


class Rows:
    """A manifest written row by row, for corpora too large to hold (used under `replacing`)."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self._file = open(path, "w", newline="", encoding="utf-8")  # noqa: SIM115, PTH123
        self._writer = csv.DictWriter(self._file, COLUMNS, lineterminator="\n")
        self._writer.writeheader()
        self.ids: set[str] = set()

    def __enter__(self) -> "Rows":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, utterance: Utterance) -> None:
        """Raises SkillError: `read_manifest` would refuse the row."""
        problem = _problem(utterance, self.ids)
        if problem:
            raise SkillError(f"corpus {utterance.corpus}, {utterance.id!r}: {problem}")
        self.ids.add(utterance.id)
        self._writer.writerow(asdict(utterance))
