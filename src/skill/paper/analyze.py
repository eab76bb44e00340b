"""`skill analyze FILE...`: similarity and clusters of layers, outside the workflow.

FILE is a stack of layer states of any model, framework or modality (`skill.similarity.layer_states`
says what is read), or a square table of CKA. Tables and pictures are written beside each other."""

from collections.abc import Sequence
from pathlib import Path

from skill.config.jobs import StudyJob
from skill.config.params import Clustering, Similarity, Studies
from skill.paper.figures import similarity as figures
from skill.paper.figures.style import save
from skill.similarity import steps
from skill.similarity.sensitivity import run_stability
from skill.utils.errors import SkillError
from skill.utils.files import read_json


def analyze(
    files: Sequence[Path], compare: Similarity, section: Clustering, output: Path | None
) -> None:
    """Compare the layers in `files`, cluster them, and draw both.

    From states: STEM-similarity.csv, and STEM-stability.csv, how often two layers share a cluster
    under a bootstrap over utterances. Always: STEM-clusters.json and .csv (the dendrogram) and
    STEM-criterion.csv (silhouette and stability against the number of clusters). Each table has its
    picture beside it. STEM is `output`, or the files' own in the working directory.

    Raises:
        SkillError: a file that is no stack of states, states that cannot be compared, or clusters
            that the layers do not allow.
    """
    for file in files:
        if not file.is_file():
            raise SkillError(f"{file}: is no file")
    stem = output or Path("+".join(file.stem for file in files))
    if not stem.name:
        raise SkillError(f"{stem}: is a folder: give the start of a file's name")
    matrix, of_states = files[0], files[0].suffix != ".csv"
    if of_states:
        matrix = _beside(stem, "-similarity.csv")
        steps.compare(files, compare, matrix)
        save(figures.matrix(matrix), matrix.with_suffix(""))
    elif len(files) > 1:
        raise SkillError(f"{files[1]}: layers are clustered from one table at a time")
    clusters, table = _beside(stem, "-clusters.json"), _beside(stem, "-clusters.csv")
    curve = _beside(stem, "-criterion.csv")
    steps.cluster(matrix, section, clusters, table, curve)
    if of_states:
        shared = _beside(stem, "-stability.csv")
        job = StudyJob(seed=0, similarity=compare, clustering=section, studies=Studies())
        run_stability(files, job, shared, curve)
        save(figures.stability(shared), shared.with_suffix(""))
    save(figures.groups(table), table.with_suffix(""))
    if len(curve.read_text().splitlines()) > 1:
        save(figures.criterion(curve), curve.with_suffix(""))
    for number, members in enumerate(read_json(clusters)["layers"], start=1):
        print(f"cluster {number}: " + ", ".join(f"{model}:{layer}" for model, layer in members))
    print(f"written: {stem}-*.csv, .json, .pdf and .png")


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)
