"""The square table of CKA that `similarity` writes and `clustering` reads.

Axes: L states.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skill.utils.errors import SkillError
from skill.utils.files import read_csv, write_csv


def write_matrix(path: Path, names: Sequence[str], matrix: NDArray[np.float64]) -> None:
    """A square table: the column `state`, then one column for each state."""
    rows = [
        {"state": name} | {other: float(v) for other, v in zip(names, row, strict=True)}
        for name, row in zip(names, matrix, strict=True)
    ]
    write_csv(path, rows, ["state", *names])


def read_matrix(path: Path) -> tuple[list[str], NDArray[np.float64]]:
    """The names of the states and CKA [L, L].

    Raises:
        SkillError: the file is no square table.
    """
    rows = read_csv(path)
    names = [row.get("state", "") for row in rows]
    if not rows or list(rows[0]) != ["state", *names]:
        raise SkillError(f"{path}: not a square table of states")
    try:
        return names, np.array([[float(row[name]) for name in names] for row in rows])
    except (TypeError, ValueError) as error:
        raise SkillError(f"{path}: not a square table of numbers: {error}") from None


def models(names: Sequence[str]) -> list[int]:
    """The number of the model that each state "model:layer" belongs to [L]."""
    of = [name.rpartition(":")[0] for name in names]
    order = list(dict.fromkeys(of))
    return [order.index(model) for model in of]
