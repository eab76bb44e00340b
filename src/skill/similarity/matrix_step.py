"""The verb `similarity`: from stored states to a square table of CKA.

Axes: L states.
"""

from collections.abc import Sequence
from pathlib import Path

from skill.config.jobs import ActivationsJob
from skill.config.params import Similarity
from skill.similarity.activations import stream
from skill.similarity.cka import cka
from skill.similarity.layer_states import read_stacks
from skill.similarity.matrix import write_matrix
from skill.utils.errors import SkillError


def run(activations: Sequence[Path], section: Similarity, output: Path) -> None:
    """Write CKA between all states in the files `activations` (several: of several teachers).

    Raises:
        SkillError: files that hold no states or other frames than the first; a state that is
            constant or not finite, named with teacher, state and utterance.
    """
    stack = read_stacks(activations).first(section.max_frames)
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
