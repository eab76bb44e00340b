"""Files that come with the repository: below the working directory, or beside the package."""

from pathlib import Path

from skill.utils.errors import SkillError
from skill.utils.files import read_csv


def find(source: str) -> Path:
    """Where `source` is; it may be nowhere."""
    path = Path(source)
    return path if path.exists() else Path(__file__).parents[3] / path


def table(name: str) -> list[dict[str, str]]:
    """The rows of `data/NAME.csv`.

    Raises:
        SkillError: it is damaged, or missing: this is no clone.
    """
    path = find(f"data/{name}.csv")
    if not path.is_file():
        raise SkillError(f"data/{name}.csv is missing: work in a clone of the repository")
    return read_csv(path)
