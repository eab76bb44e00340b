"""The plan counts what Snakemake would run, and its arithmetic is that of its figures."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from skill.config import params
from skill.utils.errors import SkillError
from skill.utils.files import data_table, read_csv
from skill.workflow import costs, plan

ROOT = Path(__file__).parents[2]
PHASES = {  # rules of each phase
    "corpora": ["convert_corpus", "list_corpus"],
    "teachers": ["fetch_teacher", "pretrain_teacher"],
    "activations": ["record_states"],
    "similarity": ["compare_layers"],
    "clustering": ["group_layers"],
    "stage1": ["prune_student"],
    "stage2": ["distil_student"],
    "superb": ["evaluate", "measure_size", "collect_scores"],
    "paper": [
        "tabulate_results", "tabulate_published", "compare_upstreams", "tabulate_figure",
        "measure_regression", "draw_similarity",
        "draw_dendrogram", "draw_curves", "draw_layers", "draw_regression", "draw_size",
        "draw_sparsity", "draw_published", "draw_methods", "draw_ablation",
    ],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SKILL_CORPORA", raising=False)


def preset(name: str, **sections: object) -> params.Params:
    written = yaml.safe_load((ROOT / f"presets/{name}.yaml").read_text())
    path = Path("p.yaml")
    path.write_text(yaml.safe_dump(written | sections))
    return params.load(path)


def total(made: costs.Plan, phase: str, what: str) -> float:
    return float(sum(getattr(job, what) for job in made.phases[phase]))


@pytest.mark.parametrize("name", ["paper", "mini", "smoke", "study"])
def test_it_counts_the_jobs_that_snakemake_would_run(tmp_path: Path, name: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["snakemake", "-n", "--snakefile", str(ROOT / "Snakefile"), "--directory", ".",
               "--workflow-profile", "none", "--cores", "1",
               "--config", f"params=presets/{name}.yaml"]  # fmt: skip
    said = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PATH": path})
    counts = {k: int(n) for k, n in re.findall(r"^(\w+) +(\d+)$", said.stdout, re.M)}
    assert counts, said.stdout + said.stderr
    made = costs.make(preset(name))
    expected = {p: sum(counts.get(rule, 0) for rule in rules) for p, rules in PHASES.items()}
    assert {phase: len(jobs) for phase, jobs in made.phases.items()} == expected
    assert not any(job.done for jobs in made.phases.values() for job in jobs)


def test_the_papers_training_hours_come_back() -> None:
    """One DPHuBERT student at the published schedule: 18 and 6 GPU-hours."""
    student = {"one": {"method": "dphubert", "teachers": ["hubert-base"], "sparsity": 0.75}}
    made = costs.make(preset("paper", students=student))
    assert total(made, "stage1", "gpu") / 3600 == pytest.approx(18, rel=0.01)
    assert total(made, "stage2", "gpu") / 3600 == pytest.approx(6, rel=0.01)


def test_hours_grow_with_steps_and_models_and_shrink_with_what_is_done() -> None:
    one = costs.make(preset("mini"))
    stage = preset("mini").stage1.model_dump() | {"steps": 20_000}
    assert total(costs.make(preset("mini", stage1=stage)), "stage1", "gpu") == pytest.approx(
        2 * total(one, "stage1", "gpu")
    )
    small = {"wavlm-base-plus": {"random": {"family": "wavlm", "blocks": 12, "width": 160}}}
    shrunk = total(costs.make(preset("mini", teachers=small)), "stage1", "gpu")
    cost = {row["name"]: float(row["value"]) for row in read_csv(ROOT / "data/costs.csv")}
    faster = cost["cpu-train-small-float32"] / cost["cpu-train-float32"]
    assert total(one, "stage1", "gpu") / shrunk == pytest.approx(faster, rel=1e-3)
    folder = Path("results/stage1")
    folder.mkdir(parents=True)
    for kind in ("safetensors", "csv", "json"):
        (folder / f"skill-wavlm.{kind}").touch()
    done = {job.outputs[0].stem: job.done for job in costs.make(preset("mini")).phases["stage1"]}
    assert done == {"skill-wavlm": True, "dphubert-wavlm": False}
    row = next(r for r in plan.show(costs.make(preset("mini"))).splitlines() if "stage1" in r)
    hours = total(one, "stage1", "gpu") / 3600 / 2
    assert row.split()[1:4] == ["2", "1", f"{hours:.2f}"]


def test_download_is_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {r["part"]: int(r["bytes"] or 0) for r in data_table("corpora")}
    needed = ["train-clean-100", "train-clean-360", "train-other-500", "dev-clean", "dev-other",
              "test-clean"]  # fmt: skip
    made = costs.make(preset("paper"))
    assert total(made, "corpora", "download") == sum(sizes[part] for part in needed)
    assert plan.show(made).count("SKILL_CORPORA is not set") == 1
    assert "voxceleb1: has to be put below SKILL_CORPORA by hand" in plan.show(made)
    assert "asv needs $SKILL_CORPORA/VoxCeleb1/voxceleb1_test_v2.txt" in plan.show(made)
    (tmp_path / "c/LibriSpeech/train-other-500").mkdir(parents=True)
    monkeypatch.setenv("SKILL_CORPORA", str(tmp_path / "c"))
    made = costs.make(preset("paper"))
    needed.remove("train-other-500")
    assert total(made, "corpora", "download") == sum(sizes[part] for part in needed)
    assert "SKILL_CORPORA is not set" not in plan.show(made)
    assert total(made, "teachers", "download") == pytest.approx(2 * 378e6, rel=0.02)


def test_lengths_are_those_of_a_manifest_that_is_there() -> None:
    before = total(costs.make(preset("smoke")), "activations", "cpu")
    Path("results/corpora").mkdir(parents=True)
    header = "id,corpus,path,start,samples,speaker,language,text,split,kind"
    Path("results/corpora/beeps.csv").write_text(f"{header}\nu,beeps,a,0,32000,,en,,train,human\n")
    after = total(costs.make(preset("smoke")), "activations", "cpu")
    assert after == pytest.approx(before * 2 / 8)


def test_parameters_of_known_models() -> None:
    assert costs.parameters(12, 768) == pytest.approx(94.4e6, rel=0.01)
    assert costs.parameters(24, 1024) == pytest.approx(315e6, rel=0.01)
    assert costs.parameters(12, 160) == pytest.approx(4.09e6, rel=0.1)


def test_every_figure_has_a_source() -> None:
    rows = read_csv(ROOT / "data/costs.csv")
    for row in rows:
        assert float(row["value"]) > 0 and row["unit"] and row["source"], row
        assert row["basis"] in ("benchmark", "published", "derived", "assumed"), row
        file = row["source"].partition(":")[0]
        if row["basis"] == "benchmark" and file.startswith("docs/"):
            found = [float(n) for n in re.findall(r"\d+\.\d+", (ROOT / file).read_text())]
            whole = [20 / n for n in found if n] if "forward" in row["name"] else found
            assert any(n == pytest.approx(float(row["value"]), rel=5e-3) for n in whole), row
        elif row["basis"] == "benchmark":  # of a rule, as its run time is recorded
            phase = Path(file).relative_to("benchmarks/snakemake").parts[0]
            rules = (ROOT / f"workflow/rules/{phase}.smk").read_text()
            assert f"benchmarks/snakemake/{phase}/" in rules
        if row["basis"] == "published":
            assert re.match(r"arXiv:\d{4}\.\d{5}: ", row["source"]), row
    used = set(re.findall(r'cost\["([a-z0-9-]+)"\]|"((?:cpu|gpu)-[a-z0-9-]+)"',
                          (ROOT / "src/skill/workflow/costs.py").read_text()))  # fmt: skip
    assert {a or b for a, b in used} <= {row["name"] for row in rows}


def test_the_verb_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    from skill.__main__ import main

    preset("smoke")
    assert main(["plan", "p.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["phase", "jobs", "done"]
    assert [line.split()[0] for line in lines[1:11]] == [*PHASES, "all"]
    assert len({len(line) for line in lines[:11]}) == 1
    assert main(["plan", "none.yaml"]) == 1
    with pytest.raises(SkillError, match=r"none\.yaml"):
        plan.run(Path("none.yaml"))
