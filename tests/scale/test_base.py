"""A WavLM Base+ of random weights through every phase, by the workflow itself; slow.

The teacher is a folder that `transformers` writes from its own configuration. Seconds and peak
memory of each phase go to `scratch/scale.json`; `python tests/scale/record.py` puts them into the
documentation.
"""

import csv
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from skill.encoder import checkpoint

ROOT = Path(__file__).parents[2]
PHASES = (
    "corpora",
    "teachers",
    "activations",
    "similarity",
    "clustering",
    "stage1",
    "stage2",
    "superb",
)
STAGE = {"steps": 3, "batch_seconds": 8, "micro_seconds": 4, "validate_every": 3}
_EXPORT = """
import sys
from pathlib import Path
from skill.__main__ import main

code = main(["export", *sys.argv[1:]])
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
sys.exit(code)
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def parameters(teacher: Path) -> dict[str, object]:
    """The smoke preset, with a Base teacher and one student at 75 %."""
    written: dict[str, dict[str, object]] = yaml.safe_load(
        (ROOT / "presets/smoke.yaml").read_text()
    )
    return {
        **written,
        "teachers": {"wavlm-base-plus": {"source": str(teacher)}},
        "activations": {"seconds": 20, "max_frames": 1000},
        "clustering": written["clustering"] | {"num_clusters": 4},
        "stage1": written["stage1"] | STAGE,
        "stage2": written["stage2"] | STAGE,
        "students": {"s": {"method": "skill", "teachers": ["wavlm-base-plus"], "sparsity": 0.75}},
        "superb": written["superb"] | {"upstreams": {"teachers": False, "fbank": False}},
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the whole workflow has run and the student is exported."""
    from transformers import WavLMConfig, WavLMModel

    folder = tmp_path_factory.mktemp("base size")
    torch.manual_seed(0)
    WavLMModel(WavLMConfig()).save_pretrained(folder / "wavlm-base-plus")
    (folder / "params.yaml").write_text(yaml.safe_dump(parameters(folder / "wavlm-base-plus")))
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
    }
    load = os.getloadavg()[0]
    subprocess.run(
        ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2", "--jobs", "1",
         "--resources", "gpu=1", "--quiet", "host"],
        cwd=folder, env=environment, check=True,
    )  # fmt: skip
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _EXPORT, "results/stage2/s.safetensors", "exported"],
        cwd=folder, env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    export = {"seconds": time.monotonic() - began, "mebibytes": int(done.stdout.split()[-1]) / 1024}
    record = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f} at the start",
        "phases": {phase: measured(folder, phase) for phase in PHASES} | {"export": export},
    }
    (ROOT / "scratch").mkdir(exist_ok=True)
    (ROOT / "scratch/scale.json").write_text(json.dumps(record, indent=2) + "\n")
    return folder


def measured(folder: Path, phase: str) -> dict[str, float]:
    """Seconds of all jobs of a phase and the largest resident set, as Snakemake saw them."""
    rows = []
    for path in (folder / "benchmarks/snakemake" / phase).rglob("*.tsv"):
        with path.open() as file:
            rows += list(csv.DictReader(file, delimiter="\t"))
    peaks = [float(row["max_rss"]) for row in rows if row["max_rss"] not in ("-", "NA")]
    return {"seconds": sum(float(row["s"]) for row in rows), "mebibytes": max(peaks, default=0.0)}


def test_the_teacher_is_a_base_model(run: Path) -> None:
    teacher = checkpoint.load_encoder(run / "results/teachers/wavlm-base-plus.safetensors")
    assert teacher.num_parameters() == pytest.approx(94.38e6, rel=1e-3)


def test_the_student_has_a_quarter_of_it(run: Path) -> None:
    pruned = json.loads((run / "results/stage1/s.json").read_text())["parameters"]
    student = checkpoint.load_encoder(run / "results/stage2/s.safetensors")
    assert student.num_parameters() == pruned == pytest.approx(23.6e6, rel=0.005)


def test_clusters_and_scores_are_there(run: Path) -> None:
    groups = json.loads((run / "results/clustering/s.json").read_text())["layers"]
    assert len(groups) == 4 and sum(len(group) for group in groups) == 13
    with (run / "results/paper/results.csv").open() as file:
        assert [row["upstream"] for row in csv.DictReader(file)] == ["s"]


def test_the_exported_student_says_the_same_in_transformers(run: Path) -> None:
    from transformers import AutoModel

    exported = AutoModel.from_pretrained(run / "exported", trust_remote_code=True).eval()
    student = checkpoint.load_encoder(run / "results/stage2/s.safetensors")
    waveform = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = student(waveform)[0][-1], exported(waveform).last_hidden_state
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-4)
