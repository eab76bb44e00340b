"""A folder corpus under real Snakemake: a change in the folder makes the next run begin there."""

import subprocess
from pathlib import Path

import numpy as np
import soundfile
import yaml
from conftest import ENVIRONMENT

ROOT = Path(__file__).parents[2]
TARGET = "results/corpora/mine.csv"


def recording(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).normal(0, 0.1, 16_000), 16_000)


def snakemake(folder: Path, corpora: Path, *options: str) -> str:
    """Its output; a run of one small corpus, or what it would run."""
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT / "src"), "SKILL_CORPORA": str(corpora)}
    done = subprocess.run(
        ["snakemake", "-s", str(ROOT / "Snakefile"), "--directory", str(folder), "--cores", "1",
         "--resources", "gpu=1", *options, "--", TARGET],
        cwd=folder, env=environment, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_changed_folder_is_noticed(tmp_path: Path) -> None:
    project, corpora = tmp_path / "a project", tmp_path / "my corpora"
    project.mkdir()
    params = yaml.safe_load((ROOT / "presets/smoke.yaml").read_text())
    params["corpora"]["mine"] = {"kind": "folder"}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    for number in range(2):
        recording(corpora / f"mine/{number}.wav", number)
    snakemake(project, corpora)
    assert "Nothing to be done" in snakemake(project, corpora, "-n")
    recording(corpora / "mine/2.wav", 2)
    assert "rule convert_corpus" in snakemake(project, corpora, "-n")
