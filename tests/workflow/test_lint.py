"""`snakemake --lint`, with one advice left out: the environment is locked, so no conda per rule."""

import re
from pathlib import Path

from conftest import Smoke

ALLOWED = "Specify a conda environment or container for each rule."


def test_the_linter_has_nothing_to_say(smoke: Smoke) -> None:
    text = smoke.project.run("snakemake", "--lint", code=None)
    titles = [title for title in re.findall(r"^    \* (.*?):$", text, re.M) if title != ALLOWED]
    assert "Lints for" in text and not titles, text


def test_only_helpers_stand_beside_rules() -> None:
    """Programs live in src/ and tools/."""
    rules = Path(__file__).parents[2] / "workflow"
    kinds = {path.suffix for path in rules.rglob("*") if path.is_file()}
    assert kinds == {".smk", ".rst"}
