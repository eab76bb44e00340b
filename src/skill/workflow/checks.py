"""Whether the students can learn what their methods say, before the teachers are there.

Imports no torch.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from skill.config.load import load
from skill.config.params import Params, Student, Teacher
from skill.distillation.targets import build_targets
from skill.utils.errors import SkillError
from skill.utils.files import checkout_path

_HUB = {  # blocks and width
    "microsoft/wavlm-base": (12, 768),
    "microsoft/wavlm-base-plus": (12, 768),
    "microsoft/wavlm-large": (24, 1024),
    "facebook/hubert-base-ls960": (12, 768),
    "facebook/hubert-large-ll60k": (24, 1024),
    "facebook/wav2vec2-base": (12, 768),
}


def load_checked(path: Path) -> Params:
    """Read a file of parameters, and refuse students whose targets do not exist.

    Raises:
        SkillError: as `skill.config.load.load`; or a layer or a number of clusters that is
            impossible, with the file and the student's key.
    """
    params = load(path)
    for student in params.students.values():
        try:
            _check_layers(student, params.teachers)
        except SkillError as error:
            raise SkillError(f"{path}: {error}") from None
    return params


def _check_layers(student: Student, teachers: Mapping[str, Teacher]) -> None:
    """What can be known of clusters and layers before the teachers are there."""
    sizes = {name: known_size(teachers[name]) for name in student.teachers}
    known = {name: size for name, size in sizes.items() if size is not None}
    if len(known) < len(sizes):
        return
    path = f"students.{student.name}"
    if student.clustering is None:
        try:
            build_targets(student.definition, known)
        except SkillError as error:
            raise SkillError(f"{path}.method: {error}") from None
        return
    state0, count = student.clustering.state0, student.clustering.num_clusters
    layers = sum(blocks + (state0 != "omitted") for blocks, _ in known.values())
    fewest = 1 + (len(known) if state0 == "own" else 0)
    if count != "auto" and not fewest <= count <= layers:
        raise SkillError(
            f"{path}.clustering.num_clusters: {count} clusters of {layers} layers are impossible"
            + (f"; with state0: own there are {fewest} or more" if count < fewest else "")
        )


def known_size(teacher: Teacher) -> tuple[int, int] | None:
    """Blocks and width of a teacher, where they are known before it is fetched."""
    if teacher.random is not None:
        return teacher.random.blocks, teacher.random.width
    if teacher.hub is not None:
        return _HUB.get(teacher.hub)
    file = checkout_path(teacher.source or "")
    if file.suffix != ".safetensors" or not file.is_file():
        return None
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(length, file.stat().st_size)))
        config = json.loads(header["__metadata__"]["skill"])["config"]
        blocks, width = len(config["ffn"]), config["width"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # whoever reads the file for its weights says what is wrong with it
    return (blocks, width) if type(width) is int and blocks > 0 and width > 0 else None
