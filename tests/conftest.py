"""One run of the smoke preset for all tests that need its results, and projects to change."""

import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings
from packaging.requirements import Requirement

# A busy machine is no failure.
# The suite draws the same examples each time; `make fuzz` draws new ones.
settings.register_profile("skill", deadline=None, derandomize=True)
settings.register_profile("fuzz", deadline=None, derandomize=False, print_blob=True)
settings.load_profile("skill")

ROOT = Path(__file__).parents[1]
TRACKED = ["Snakefile", "dvc.yaml", ".dvc", ".dvcignore", ".gitignore", "Makefile", "presets"]
TRACKED += ["profiles", "pyproject.toml", "requirements.lock"]
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
    "DVC_NO_ANALYTICS": "1",
    "SKILL_OUTPUT": "snakemake",  # which names rules, inputs and outputs
    "GIT_AUTHOR_NAME": "tester",
    "GIT_AUTHOR_EMAIL": "tester@example.invalid",
    "GIT_COMMITTER_NAME": "tester",
    "GIT_COMMITTER_EMAIL": "tester@example.invalid",
}
ENVIRONMENT.pop("PYTHONDONTWRITEBYTECODE", None)
# Files of minutes, the longest first; the second needs no `smoke`, which the first one makes.
LONG = ["test_snakemake", "test_stages", "test_docs", "test_readme", "test_slurm"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first, so that no worker is left alone with one at the end."""
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))


class Project:
    """A checkout in a folder, and commands that run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *command: str, code: int | None = 0) -> str:
        """Standard output and error of a command that ends with `code`."""
        done = subprocess.run(
            command, cwd=self.folder, env=ENVIRONMENT | {"PYTHONPATH": str(self.folder / "src")},
            text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert code is None or done.returncode == code, f"{command}\n{done.stdout}"
        return done.stdout

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", message)

    def replace(self, old: str, new: str) -> None:
        """Change params.yaml."""
        path = self.folder / "params.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    def copy(self, folder: Path) -> "Project":
        """The same project, results and records included, in another folder."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)


def wait_for(condition: Callable[[], bool], seconds: float, why: Callable[[], str] = str) -> None:
    """Until `condition` holds; an assertion error that says `why` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, why()
        time.sleep(0.1)


def trainings(verb: str, folder: Path) -> list[int]:
    """Processes that run a training verb on recordings below `folder` and are in its loop.

    There a loader's thread has the recordings open, beside the one that read the held-out ones.
    """
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if f"\0skill\0{verb}\0".encode() not in (place / "cmdline").read_bytes():
                continue
            names = [link.readlink() for link in (place / "fd").iterdir()]
        except OSError:
            continue
        own = [name for name in names if name.suffix == ".flac" and name.is_relative_to(folder)]
        if len(own) > 1:
            found.append(int(place.name))
    return found


@dataclass(frozen=True)
class Smoke:
    """A project in which `snakemake` has made everything, and what that printed. Not to change."""

    project: Project
    output: str


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Smoke:
    """The smoke preset, run once for all of pytest's workers, in a folder with a space."""
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent
    project, output = Project(base / "smoke/the first"), base / "smoke/output.txt"
    with FileLock(base / "smoke.lock"):
        if not output.exists():
            _start(project.folder)
            output.write_text(project.run("snakemake", "--cores", "2"))
    return Smoke(project, output.read_text())


def _start(folder: Path) -> None:
    """A repository of this checkout's code with the smoke preset as its parameters."""
    folder.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")
    for name in ["src", "workflow", *TRACKED]:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)
    (folder / "data").mkdir()
    for table in (ROOT / "data").glob("*.csv"):
        shutil.copy(table, folder / "data")
    shutil.copy(ROOT / "presets/smoke.yaml", folder / "params.yaml")
    project = Project(folder)
    project.run("git", "init", "-q", "-b", "main")
    project.commit("start")


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with `transformers`, `torch` and what they require.

    Its packages are links to those installed here, so that it takes no time and no network.
    """
    folder = tmp_path_factory.mktemp("stranger") / "venv"
    venv.create(folder, symlinks=True, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    wanted, seen = ["transformers", "torch"], set[str]()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or [] if file.parts[0] != ".."}:
            if not top.endswith(".pth") and not (site / top).exists():
                (site / top).symlink_to(str(found.locate_file(top)))
        for line in found.requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(requirement.name)
    return folder / "bin/python"
