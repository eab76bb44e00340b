"""The lock, the conda environment and what is installed are the same; nothing names a registry."""

import re
from importlib import metadata
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
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
    requirements = metadata.requires("skill") or []
    names = {
        re.split(r"[^A-Za-z0-9_-]", line)[0].lower().replace("_", "-") for line in requirements
    }
    assert names - {"skill"} <= set(locked())


def test_nothing_names_a_registry() -> None:
    for name in [*FRONT, "workflow/environment.sh"]:
        text = (ROOT / name).read_text()
        assert not re.search(r"https?://|pypi\.|index-url|whl/", text), name


def test_torchaudio_and_transformers_can_be_imported() -> None:
    """Both fail on a CPU build of torch as long as torchaudio has its CUDA libraries."""
    import torchaudio.functional  # noqa: F401
    from transformers import WavLMModel  # noqa: F401
