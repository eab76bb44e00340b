"""The verb `similarity`: from stored states to a square table of CKA.

Axes: L states.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skill.activations import stream
from skill.analysis.stacks import read_stacks
from skill.errors import SkillError
from skill.files import read_csv, write_csv
from skill.params import ActivationsJob, Similarity
from skill.similarity import cka


def run(activations: Sequence[Path], section: Similarity, output: Path) -> None:
    """Write CKA between all states in the files `activations` (several: of several teachers).

    Raises:
        SkillError: files that hold no states or other frames than the first; a state that is
            constant or not finite, named with teacher, state and utterance.
    """
    stack = read_stacks(activations).cut(section.max_frames)
    matrix = cka(
        stack.states,
        section.estimator,
        kernel=section.kernel,
        bandwidth=section.bandwidth,
        standardize=section.standardize,
        names=stack.names,
    )
    write_matrix(output, stack.names, matrix.numpy())


def run_stream(
    teachers: Sequence[Path],
    manifests: Sequence[Path],
    calibration: ActivationsJob,
    section: Similarity,
    output: Path,
) -> None:
    """The same table in one pass over the audio, with nothing stored: see `activations.stream`.

    Raises:
        SkillError: as `run`; or a kernel or number of frames that one pass does not allow.
    """
    if section.kernel != "linear":
        raise SkillError(f"similarity: the {section.kernel} kernel needs stored activations")
    if section.max_frames is not None:
        raise SkillError("similarity: max_frames belongs to stored activations")
    names, matrix = stream(
        teachers,
        manifests,
        calibration,
        estimator=section.estimator,
        standardize=section.standardize,
    )
    write_matrix(output, names, matrix.numpy())


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
