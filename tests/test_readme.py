"""The README says what the last run's files say."""

import csv
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_spec = importlib.util.spec_from_file_location("readme", ROOT / "workflow/readme.py")
assert _spec is not None and _spec.loader is not None
readme = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(readme)


def test_the_table_is_the_one_of_the_files() -> None:
    written = (ROOT / "README.md").read_text(encoding="utf-8")
    table = (ROOT / "docs/sample/results.md").read_text(encoding="utf-8")
    assert readme.with_table(written, table) == written
    assert len(table.splitlines()) > 4


def test_the_calibration_page_says_what_the_study_found() -> None:
    written = (ROOT / "docs/calibration.md").read_text(encoding="utf-8")
    with (ROOT / "docs/sample/skill-wavlm-calibration.csv").open(encoding="utf-8") as file:
        table = readme.calibration_table(list(csv.DictReader(file)))
    assert readme.with_table(written, table) == written
    assert "| linear | 80 |" in table and "average" in table


def test_a_readme_without_marks_is_an_error() -> None:
    with pytest.raises(SystemExit, match="marks"):
        readme.with_table("no marks", "table")


def test_the_readme_stays_under_two_screens_and_its_links_exist() -> None:
    import re

    written = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(written.splitlines()) < 120
    for link in re.findall(r"\]\(([^)#]+)\)", written):
        if not link.startswith("http"):
            assert (ROOT / link).exists(), link
