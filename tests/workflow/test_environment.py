"""The lock, the conda environment and what is installed are the same; nothing names a registry."""

import re
import shutil
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
NOT_INSTALLED = ("teachers", "alignment")  # extras for what is made once, by hand
FRONT = ["Makefile", "requirements.lock", "environment.yml", "pyproject.toml", ".ci/run"]


def pins(lines: list[str]) -> dict[str, str]:
    found = [re.fullmatch(r"([a-z0-9-]+)==([^+\s]+)", line) for line in lines]
    assert all(found), [line for line, ok in zip(lines, found, strict=True) if not ok]
    return {match[1]: match[2] for match in found if match}


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return pins([line for line in lines if not line.startswith("#")])


def test_conda_environment_has_the_locked_versions() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert "python=3.11" in conda
    editable, *lines = pip["pip"]
    assert editable.startswith("--editable")
    assert pins(lines) == locked()


def test_locked_versions_are_installed() -> None:
    for name, version in locked().items():
        assert metadata.version(name).partition("+")[0] == version, name


def test_direct_dependencies_are_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    extras = {name: lines for name, lines in extras.items() if name not in NOT_INSTALLED}
    requirements = [
        *project["dependencies"],
        *(line for lines in extras.values() for line in lines),
    ]
    names = {re.split(r"[\[<>=~ ]", line)[0].lower().replace(".", "-") for line in requirements}
    assert names - {"skill"} <= set(locked())


def test_the_script_asks_for_the_python_that_the_project_requires() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    least = project["requires-python"].removeprefix(">=")
    assert f"< ({least.replace('.', ', ')}))" in (ROOT / "tools/environment.sh").read_text()
    assert f"Python {least} or newer" in (ROOT / "README.md").read_text()


def test_nothing_names_a_registry() -> None:
    for name in [*FRONT, "tools/environment.sh"]:
        text = (ROOT / name).read_text()
        assert not re.search(r"https?://|pypi\.|index-url|whl/", text), name


def test_torchaudio_and_transformers_can_be_imported() -> None:
    """Both fail on a CPU build of torch as long as torchaudio has its CUDA libraries."""
    import torchaudio.functional  # noqa: F401
    from transformers import WavLMModel  # noqa: F401


TOOLS = ["sh", "cat", "cksum", "df", "awk", "mkdir", "tail", "rm", "chmod", "grep"]
FAKE = {  # what is missing: scripts in front of the system's programs, and the first line they get
    "python": ({}, "Python 3.11.5 or newer is missing (Debian 12 has 3.11.2): apt install"),
    "venv": (
        {"python3.11": 'case "$2" in *ensurepip*) exit 1;; esac'},
        "Python's venv module is missing: apt install python3-venv",
    ),
    "disk": (
        {"python3.11": "", "df": 'echo "Filesystem"; echo "disk 1 1 2048 1 /"'},
        "10 GB of disk space are needed here for the Python packages (3 GB with torch's CPU build",
    ),
    "disk for a CPU build": (
        {
            "python3.11": "echo \"global.find-links='/wheels'\"",
            "df": 'echo "Filesystem"; echo "disk 1 1 2048 1 /"',
        },
        "3 GB of disk space are needed here for the Python packages, 2 MB are free",
    ),
    "network": (
        {
            "df": 'echo "Filesystem"; echo "disk 1 1 99999999 1 /"',
            "python3.11": (
                'if [ "$2" = venv ]; then mkdir -p .venv/bin; printf "%s" '
                '"#!/bin/sh\necho no route to host; exit 1\n" >.venv/bin/python; '
                "chmod +x .venv/bin/python; fi"
            ),
        },
        "the Python packages could not be installed: check the network",
    ),
}


@pytest.mark.parametrize("missing", FAKE)
def test_first_line_says_what_is_missing(tmp_path: Path, missing: str) -> None:
    """`make environment` on machines where something is not there."""
    scripts, expected = FAKE[missing]
    programs = tmp_path / "programs"
    project = tmp_path / "a project"
    (project / "tools").mkdir(parents=True)
    programs.mkdir()
    for name in ("pyproject.toml", "requirements.lock", "tools/environment.sh"):
        shutil.copy(ROOT / name, project / name)
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found
        if tool not in scripts:
            (programs / tool).symlink_to(found)
    for name, text in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    command = [str(programs / "sh"), "tools/environment.sh"]
    done = subprocess.run(
        command, cwd=project, env={"PATH": str(programs)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith(f"error: {expected}")
    assert not (project / ".venv/complete").exists()
