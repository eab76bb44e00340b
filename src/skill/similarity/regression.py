"""The verb `regression`: how well a student has learned each layer of its teachers.

The training losses of two methods cannot be compared: SKILL's targets are means of clusters, those
of DPHuBERT single layers, and each has projections of its own. So every teacher layer is predicted
anew, the same way for all students, on audio that no student was trained on:

* the best linear map from one state of the student to the teacher's state, by least squares on one
  half of the held-out utterances;
* of all the student's states, the one that fits best there (a student that learns means, or has
  fewer blocks, need not keep a layer at its old depth);
* the share of the teacher's variance that this map leaves unexplained on the other half.

A linear map, because a task's head reads states linearly; and unlike CKA the share says what is
lost when a dimension of the teacher is missing, however small its variance is beside the first.
Least squares needs one pass over the audio and one product per state: about the price of CKA.

Axes: N frames, D width of the student, E width of all teacher states side by side, S states of the
student, L states of a teacher, U utterances.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skill.config.jobs import ActivationsJob
from skill.data.manifest import usable
from skill.encoder import SpeechEncoder
from skill.similarity.activations import CalibrationUtterance, calibration_states, load
from skill.utils.bootstrap import percentiles, resampled_ratio
from skill.utils.errors import SkillError, known_content
from skill.utils.files import read_json, write_csv
from skill.utils.progress import track

COLUMNS = ["student", "teacher", "layer", "error", "low", "high", "state", "target"]
_FRAMES = 20_000  # of both halves together: ten per weight of a map at Base size
_RIDGE = 1e-4  # of a dimension's own variance: states have dimensions that are nearly equal
_RESAMPLES = 1000

Array = NDArray[np.float64]


class Fit(NamedTuple):
    """What maps from one state of the student leave of each teacher state.

    `fitted` [L] is the unexplained share on the fitting half, `residual` and `total` [U, L] the
    sums of squares of the other half's utterances.
    """

    fitted: Array
    residual: Array
    total: Array


def run(
    student: Path,
    teachers: Sequence[Path],
    summary: Path,
    manifests: Sequence[Path],
    job: ActivationsJob,
    output: Path,
) -> None:
    """Write one row per teacher and layer (`COLUMNS`).

    `error` is the unexplained share of variance with a 95 % bootstrap interval over utterances,
    `state` the student's state that predicts the layer, `target` how many layers the mean has that
    the student learned the layer in: 1, where it was picked by itself, and empty, where it was in
    no target. `summary` is stage 1's.

    Raises:
        SkillError: fewer than two held-out utterances, or states that are constant or not finite.
    """
    encoder = load(student)
    pieces = held_out(manifests, job, encoder)
    student_states, owner = _states(encoder, student.stem, pieces)
    target_sizes = _targets(summary)
    rows: list[dict[str, Any]] = []
    for path in teachers:
        teacher_states, _ = _states(load(path), path.stem, pieces)
        for layer, (error, low, high, state) in enumerate(
            errors(student_states, teacher_states, owner)
        ):
            rows.append(
                {
                    "student": student.stem, "teacher": path.stem, "layer": layer, "error": error,
                    "low": low, "high": high, "state": state,
                    "target": target_sizes.get((path.stem, layer), ""),
                }
            )  # fmt: skip
    write_csv(output, rows, COLUMNS)


def held_out(
    manifests: Sequence[Path], job: ActivationsJob, encoder: SpeechEncoder
) -> list[CalibrationUtterance]:
    """Development utterances up to `activations.seconds`, spread over the manifests; some frames.

    Raises:
        SkillError: there are fewer than two.
    """
    utterances = usable(manifests, job.unlabelled.min_seconds, job.unlabelled.max_seconds, "dev")
    share = job.activations.seconds / sum(utterance.seconds for utterance in utterances)
    step = max(1, round(1 / share))
    counted = [(u, int(encoder.frames(u.samples))) for u in utterances[::step]]
    if len(counted) < 2:
        names = ", ".join(str(path) for path in manifests)
        raise SkillError(f"{names}: a map and its test need two dev utterances, there is one")
    thin = -(-sum(count for _, count in counted) // _FRAMES)
    return [
        CalibrationUtterance(u, count, list(range(0, count, thin))) for u, count in counted if count
    ]


def errors(
    student: Sequence[Array], teacher: Sequence[Array], owner: NDArray[np.int64]
) -> list[tuple[float, float, float, int]]:
    """For each teacher state the unexplained share, its interval, and the student's best state.

    Args:
        student: the student's states, S of [N, D].
        teacher: the teacher's states, L of [N, width].
        owner: [N] the utterance of each frame; even ones are fitted, odd ones tested.
    """
    fits = []
    with track(len(student), "regression") as progress:
        for state in student:
            fits.append(unexplained(state, teacher, owner))
            progress.update(len(fits))
    best = np.argmin([fit.fitted for fit in fits], axis=0)
    rows = []
    for layer, state in enumerate(best):
        residual, total = (part[:, layer] for part in (fits[state].residual, fits[state].total))
        interval = percentiles(resampled_ratio(residual, total, resamples=_RESAMPLES))
        share = float(residual.sum() / total.sum())
        rows.append((share, interval.low, interval.high, int(state)))
    return rows


def unexplained(x: Array, teacher: Sequence[Array], owner: NDArray[np.int64]) -> Fit:
    """Least squares from x [N, D] to every state of `teacher` at once, even to odd utterances."""
    fitting, testing = owner % 2 == 0, owner % 2 == 1
    y = np.concatenate(teacher, axis=1)
    edges = np.cumsum([0, *(state.shape[1] for state in teacher[:-1])])
    x, y = x - x[fitting].mean(0), y - y[fitting].mean(0)
    gram = x[fitting].T @ x[fitting]
    variance = np.diagonal(gram)
    gram[np.diag_indices_from(gram)] += np.maximum(_RIDGE * variance, 1e-12 * variance.max())
    weights = np.linalg.solve(gram, x[fitting].T @ y[fitting])
    residual = np.add.reduceat(np.square(y - x @ weights), edges, axis=1)
    total = np.add.reduceat(np.square(y), edges, axis=1)
    return Fit(
        residual[fitting].sum(0) / total[fitting].sum(0),
        _by_utterance(residual[testing], owner[testing]),
        _by_utterance(total[testing], owner[testing]),
    )


def _by_utterance(values: Array, owner: NDArray[np.int64]) -> Array:
    """Sums [U, L] of values [N, L]."""
    _, number = np.unique(owner, return_inverse=True)
    sums = np.zeros((int(number.max()) + 1, values.shape[1]))
    np.add.at(sums, number, values)
    return sums


def _states(
    encoder: SpeechEncoder, name: str, pieces: Sequence[CalibrationUtterance]
) -> tuple[list[Array], NDArray[np.int64]]:
    """The states on all pieces, and which piece a frame is of [N]."""
    parts = [states.numpy() for _, states in calibration_states(encoder, name, pieces)]
    owner = np.repeat(np.arange(len(parts)), [part.shape[1] for part in parts])
    count = len(parts[0])
    return [
        np.concatenate([p[state] for p in parts]).astype(np.float64) for state in range(count)
    ], owner


def _targets(summary: Path) -> dict[tuple[str, int], int]:
    """{(teacher, layer): number of layers in its target}; the smallest where there are several."""
    sizes: dict[tuple[str, int], int] = {}
    content = read_json(summary)
    with known_content(summary):
        for target in content["targets"]:
            layers = [(name, layer) for name, layer in target["teacher"] if layer != "projection"]
            for key in layers:
                sizes[key] = min(sizes.get(key, len(layers)), len(layers))
    return sizes
