"""Bad paths, whichever command gets them: one sentence that names it, exit code 1, no files."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skill.cli import main
from skill.config import jobs
from skill.config.load import load
from skill.config.params import Corpus, RandomEncoder, Teacher
from skill.data.corpora import prepare
from skill.teachers.fetch import run_teacher
from skill.utils.files import write_json

ROOT = Path(__file__).parents[1]
P = load(ROOT / "presets/smoke.yaml")
UPSTREAMS = ["skill-wavlm", "dphubert-wavlm"]


def text(job: object) -> str:
    return json.dumps(job.model_dump(mode="json"))  # type: ignore[attr-defined]


STAGE = ["--teachers", "{teacher}", "--manifests", "{manifest}", "--clustering", "{clusters}",
         "--output", "{out}/s.safetensors", "--scratch", "{out}/scratch"]  # fmt: skip
# Every command with good files; each is then replaced by bad ones.
COMMANDS: dict[str, list[str]] = {
    "predict": ["sid", "{audio}", "--head", "{teacher}", "--encoder", "{teacher}"],
    "export": ["{teacher}", "{out}/folder"],
    "analyze": ["{states}", "--output", "{out}/a"],
    "check": ["{params}"],
    "plan": ["{params}"],
    "activations": ["--params", text(jobs.ActivationsJob.of(P)), "--teacher", "{teacher}",
                    "--manifests", "{manifest}", "--output", "{out}/x.safetensors"],
    "similarity": ["--params", "{}", "--activations", "{states}", "--output", "{out}/x.csv"],
    "cluster": ["--params", '{"num_clusters": 2}', "--similarity", "{matrix}",
                "--output", "{out}/x.json"],
    "stage1": ["s", "--params", text(jobs.Stage1Job.of(P, "skill-wavlm")), *STAGE],
    "stage2": ["s", "--params", text(jobs.Stage2Job.of(P, "skill-wavlm")),
               "--student", "{teacher}", *STAGE],
    "evaluate": ["u", "sid", "--params", text(jobs.TaskJob.of(P, "wavlm-random", "sid")),
                 "--encoder", "{teacher}", "--manifests", "{manifest}",
                 "--output", "{out}/x.json", "--scratch", "{out}/scratch"],
    "profile": ["u", "--encoder", "{teacher}", "--output", "{out}/x.json"],
    "regression": ["--params", text(jobs.ActivationsJob.of(P)), "--student", "{teacher}",
                   "--teachers", "{teacher}", "--summary", "{summary}",
                   "--manifests", "{manifest}", "--output", "{out}/x.csv"],
    "scores": ["--params", text(jobs.ScoresJob.of(P, UPSTREAMS)), "--results", "{result}",
               "--output", "{out}/x.json"],
    "table": ["size", "--params", text(jobs.PaperJob.of(P, UPSTREAMS)), "--inputs", "{scores}",
              "--output", "{out}/x.csv"],
    "figure": ["layers", "--table", "{scores}", "--output", "{out}/x.pdf"],
    "stability": ["--params", text(jobs.StudyJob.of(P, "skill-wavlm")),
                  "--activations", "{states}", "--output", "{out}/x-stability.csv"],
    "sensitivity": ["--params", text(jobs.StudyJob.of(P, "skill-wavlm")),
                    "--activations", "{states}", "--output", "{out}/x.csv"],
}  # fmt: skip
PLACE = re.compile(r"^\{(\w+)\}$")
FILES = {
    command: sorted({match[1] for word in words if (match := PLACE.match(word))})
    for command, words in COMMANDS.items()
}
BAD = ["missing", "folder", "empty", "text", "pipe", "nested"]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Files of each kind; those that no command reads to the end hold little."""
    folder = tmp_path_factory.mktemp("good files")
    files = {"teacher": folder / "t.safetensors", "manifest": folder / "beeps.csv"}
    run_teacher("wavlm-random", Teacher(random=RandomEncoder(family="wavlm")), files["teacher"])
    beeps = Corpus(kind="synthetic", speakers=2, sentences=4)
    prepare.run("beeps", beeps, files["manifest"], folder / "beeps.flac")
    for name in ("clusters", "summary", "result"):
        files[name] = folder / f"{name}.json"
        write_json(files[name], {"layers": [[["wavlm-random", 0]], [["wavlm-random", 1]]]})
    files |= {"audio": folder / "beeps.flac", "states": folder / "no.safetensors"}
    files |= {"matrix": folder / "no.csv", "scores": folder / "no.csv"}
    files["params"] = ROOT / "presets/smoke.yaml"
    yield files


def spoil(kind: str, like: Path, folder: Path) -> Path:
    """A bad file, of the same ending as a good one."""
    path = folder / f"bad file{like.suffix}"
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("Once upon a time, there was a file.\nIt was of no use, to anybody.\n")
    elif kind == "nested":
        path.write_text(100_000 * "[")
    elif kind == "pipe":
        os.mkfifo(path)
    return path


# Behind another check: a head, and the file of stage 1, which no test here has.
BEHIND = {("predict", "audio"), ("stage2", "clusters"), ("stage2", "manifest")}
CASES = [
    (command, file, bad)
    for command, files in FILES.items()
    for file in files
    for bad in BAD
    if (command, file) not in BEHIND
]


@pytest.mark.parametrize(("command", "file", "bad"), CASES)
@pytest.mark.timeout(60)
def test_a_bad_file_is_named(
    command: str,
    file: str,
    bad: str,
    good: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.chdir(out)
    path = spoil(bad, good[file], tmp_path)
    places = {name: str(place) for name, place in good.items()} | {file: str(path)}
    words = [
        word if word == "{}" or '"' in word
        else word.format(**places, out=out) for word in COMMANDS[command]
    ]  # fmt: skip
    assert main([command, *words]) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("error: ") and "bad file" in said[-1], said
    assert len(said[-1]) < 600 and not any("Traceback" in line for line in said)
    left = [p for p in out.rglob("*") if p.is_file() and p.name != ".lock"]
    assert not left, left


@pytest.mark.parametrize("place", ["a file", "no room"])
def test_a_place_that_cannot_be_written_to_is_named(place: str, tmp_path: Path) -> None:
    """Below a file; and where no file may grow, as on a full disk."""
    output = tmp_path / "out" / "t.safetensors"
    if place == "a file":
        (tmp_path / "out").write_text("")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); "
    code = (limit if place == "no room" else "") + "from skill.__main__ import main; main()"
    job = '{"random": {"family": "wavlm"}}'
    done = subprocess.run(
        [sys.executable, "-c", code, "teacher", "t", "--params", job, "--output", str(output)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith(f"error: {output}: cannot be written"), done.stderr
    assert "Traceback" not in done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]
