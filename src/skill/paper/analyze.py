"""`python -m skill similarity FILE` and `python -m skill clustering FILE`, outside the workflow.

FILE is a stack of layer states of any model, framework or modality (`skill.similarity.layer_states`
says what is read), or for `clustering` also a square table of CKA. Tables and pictures are written
beside each other, and what was found is printed."""

from collections.abc import Sequence
from pathlib import Path

from skill.config.jobs import StudyJob
from skill.config.params import Clustering, Similarity, Studies
from skill.paper.figures import similarity as figures
from skill.paper.figures.style import save
from skill.similarity import clustering_step as groups
from skill.similarity import matrix_step as layers
from skill.similarity.matrix import read_matrix
from skill.similarity.sensitivity import run_stability
from skill.utils.errors import SkillError
from skill.utils.files import read_json


def similarity(files: Sequence[Path], section: Similarity, output: Path | None) -> None:
    """Compare the layers in `files`: `output` (a .csv), and a heat map beside it.

    Without `output`, the table is "FILE-similarity.csv" in the working directory.

    Raises:
        SkillError: a file that is no stack of states, or whose states cannot be compared.
    """
    table = output or Path(f"{_stem(files)}-similarity.csv")
    layers.run(files, section, table)
    save(figures.matrix(table), table.with_suffix(""))
    print(f"{table}: similarity of {len(read_matrix(table)[0])} layers; .pdf and .png beside")


def clustering(
    files: Sequence[Path],
    section: Clustering,
    output: Path | None,
    *,
    compare: Similarity,
    seed: int,
) -> None:
    """Group the layers in `files`: `output` (.json), the tables and pictures beside it.

    From states, also how stable the groups are under a bootstrap over utterances. Without
    `output`, the groups are in "FILE-groups.json" in the working directory.

    Raises:
        SkillError: as `similarity`; or groups that the layers do not allow.
    """
    output = output or Path(f"{_stem(files)}-groups.json")
    if files[0].suffix == ".csv":
        if len(files) > 1:
            raise SkillError(f"{files[1]}: layers are grouped from one table at a time")
        matrix = files[0]
    else:
        matrix = _beside(output, "-similarity.csv")
        similarity(files, compare, matrix)
    table, curve = output.with_suffix(".csv"), _beside(output, "-criterion.csv")
    groups.run(matrix, section, output, table, curve)
    if files[0].suffix != ".csv":
        shared = _beside(output, "-stability.csv")
        job = StudyJob(seed=seed, similarity=compare, clustering=section, studies=Studies())
        run_stability(files, job, shared, curve)
        save(figures.stability(shared), shared.with_suffix(""))
    save(figures.groups(table), table.with_suffix(""))
    if len(curve.read_text().splitlines()) > 1:
        save(figures.criterion(curve), curve.with_suffix(""))
    for number, members in enumerate(read_json(output)["layers"], start=1):
        print(f"group {number}: " + ", ".join(f"{model}:{layer}" for model, layer in members))


def _stem(files: Sequence[Path]) -> str:
    return "+".join(file.stem for file in files)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.stem + ending)
