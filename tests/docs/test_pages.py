"""The pages are built from docs/ and the docstrings, without a warning."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_pages_are_built_and_hold_the_docstrings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "api/similarity/index.html").read_text(encoding="utf-8")
    assert "CKA between all pairs of states" in page
    assert (tmp_path / "method/index.html").exists()
