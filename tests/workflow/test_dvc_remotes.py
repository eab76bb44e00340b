"""`dvc push` and `dvc pull` of results and students: a folder (test_workflow) and an S3 server."""

import importlib.util
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, Project, Smoke, wait_for

KEYS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret"}
MISSING = [name for name in ("dvc_s3", "moto", "flask") if not importlib.util.find_spec(name)]


def answers(address: str, method: str = "GET") -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method=method), timeout=20):
            return True
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a process that speaks S3, with a bucket `skill`."""
    if MISSING:
        pytest.skip(f"{MISSING[0]} is not installed: no S3 server here")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=file, stderr=file,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(address), 120, log.read_text)
        assert answers(f"{address}/skill", "PUT")
        yield address
    finally:
        process.terminate()
        process.wait(30)


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_results_and_students_travel_through_s3(
    smoke: Smoke, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one machine pushes another one pulls: the same bytes, and nothing to be done."""
    for name, value in KEYS.items():
        monkeypatch.setitem(ENVIRONMENT, name, value)
    first = smoke.project.copy(tmp_path / "the first machine")
    first.run("dvc", "remote", "add", "-q", "-d", "store", "s3://skill/a run")
    first.run("dvc", "remote", "modify", "-q", "store", "endpointurl", server)
    first.run("dvc", "commit", "-q", "--force")  # what `snakemake` has made
    first.commit("results")
    first.run("dvc", "push", "-q")
    second = Project(tmp_path / "the second machine")
    first.run("git", "clone", "-q", str(first.folder), str(second.folder))
    assert not (second.folder / "results").exists()
    second.run("dvc", "pull", "-q")
    pulled = contents(second.folder / "results")
    assert pulled == contents(first.folder / "results")
    assert {"stage2/skill-wavlm.safetensors", "paper/results.md"} <= set(pulled)
    assert "Nothing to be done" in second.run("snakemake", "-n")

    (first.folder / "results/stage2/skill-wavlm.json").write_text("{}\n")
    first.run("dvc", "commit", "-q", "--force", "stage2")
    first.commit("another result")
    first.run("dvc", "push", "-q")
    second.run("git", "pull", "-q")
    second.run("dvc", "pull", "-q", "stage2")
    assert (second.folder / "results/stage2/skill-wavlm.json").read_text() == "{}\n"
