"""The plan counts Snakemake's jobs, and its arithmetic is that of its figures."""

import re
from pathlib import Path

import pytest
import yaml
from conftest import Smoke

from skill.cli import main
from skill.config.load import load
from skill.utils.errors import SkillError
from skill.utils.files import data_table, read_csv
from skill.workflow import costs
from skill.workflow.costs import Cost, Estimator, Job

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SKILL_CORPORA", raising=False)


def preset(name: str, **sections: object) -> Estimator:
    written = yaml.safe_load((ROOT / f"presets/{name}.yaml").read_text())
    path = Path("p.yaml")
    path.write_text(yaml.safe_dump(written | sections))
    return Estimator(load(path))


def job(rule: str, output: str) -> Job:
    return Job(rule, (f"results/{output}",), done=False)


PRUNE = job("prune_student", "stage1/skill-wavlm.safetensors")


def test_the_papers_training_hours_come_back() -> None:
    """One DPHuBERT student at the published schedule: 18 and 6 GPU-hours."""
    student = {"one": {"method": "dphubert", "teachers": ["hubert-base"], "sparsity": 0.75}}
    paper = preset("paper", students=student)
    first = paper.cost(job("prune_student", "stage1/one.safetensors"))
    second = paper.cost(job("distil_student", "stage2/one.safetensors"))
    assert first.gpu / 3600 == pytest.approx(18, rel=0.01)
    assert second.gpu / 3600 == pytest.approx(6, rel=0.01)


def test_hours_grow_with_steps_and_models() -> None:
    one = preset("mini")
    stage = one.p.stage1.model_dump() | {"steps": 20_000}
    assert preset("mini", stage1=stage).cost(PRUNE).gpu == pytest.approx(2 * one.cost(PRUNE).gpu)
    small = {"wavlm-base-plus": {"random": {"family": "wavlm", "blocks": 12, "width": 160}}}
    small["wavlm-base-plus"]["random"] |= {"heads": 5}
    shrunk = preset("mini", teachers=small).cost(PRUNE).gpu
    figures = {row["name"]: float(row["value"]) for row in read_csv(ROOT / "data/costs.csv")}
    faster = figures["cpu-train-small-float32"] / figures["cpu-train-float32"]
    assert one.cost(PRUNE).gpu / shrunk == pytest.approx(faster, rel=1e-3)


def test_costs_are_of_what_is_left() -> None:
    other = Job("prune_student", ("results/stage1/dphubert-wavlm.safetensors",), done=True)
    lines = costs.show([PRUNE, other], preset("mini")).splitlines()
    hours = preset("mini").cost(PRUNE).gpu / 3600
    assert lines[1].split()[:4] == ["stage1", "2", "1", f"{hours:.2f}"]
    assert lines[2].split()[:4] == ["all", "2", "1", f"{hours:.2f}"]
    assert len({len(line) for line in lines[:3]}) == 1


def test_download_is_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {r["part"]: int(r["bytes"] or 0) for r in data_table("corpora")}
    needed = ["train-clean-100", "train-clean-360", "train-other-500", "dev-clean", "dev-other",
              "test-clean"]  # fmt: skip

    def corpora(paper: Estimator) -> tuple[Cost, str]:
        jobs = [job("list_corpus", f"corpora/{name}.csv") for name in paper.p.corpora]
        total = sum(map(paper.cost, jobs), Cost())
        return total, "\n".join(paper.all_notes())

    total, notes = corpora(preset("paper"))
    assert total.download == sum(sizes[part] for part in needed)
    assert notes.count("SKILL_CORPORA is not set") == 1
    assert "voxceleb1: has to be put below SKILL_CORPORA by hand" in notes
    assert "asv needs $SKILL_CORPORA/VoxCeleb1/voxceleb1_test_v2.txt" in notes
    (tmp_path / "c/LibriSpeech/train-other-500").mkdir(parents=True)
    monkeypatch.setenv("SKILL_CORPORA", str(tmp_path / "c"))
    total, notes = corpora(preset("paper"))
    needed.remove("train-other-500")
    assert total.download == sum(sizes[part] for part in needed)
    assert "SKILL_CORPORA is not set" not in notes
    teacher = preset("paper").cost(job("fetch_teacher", "teachers/hubert-base.safetensors"))
    assert teacher.download == pytest.approx(378e6, rel=0.02)


def test_lengths_are_those_of_a_manifest_that_is_there() -> None:
    states = job("record_states", "activations/wavlm-random.safetensors")
    before = preset("smoke").cost(states).cpu
    Path("results/corpora").mkdir(parents=True)
    header = "id,corpus,path,start,samples,speaker,language,text,split,kind"
    Path("results/corpora/beeps.csv").write_text(f"{header}\nu,beeps,a,0,32000,,en,,train,human\n")
    assert preset("smoke").cost(states).cpu == pytest.approx(before * 2 / 8)


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
    used = set(re.findall(r'figures\["([a-z0-9-]+)"\]|"((?:cpu|gpu)-[a-z0-9-]+)"',
                          (ROOT / "src/skill/workflow/costs.py").read_text()))  # fmt: skip
    assert {a or b for a, b in used} <= {row["name"] for row in rows}


def test_jobs_are_those_of_the_workflow(
    smoke: Smoke, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All are done after a run; none is in a folder where nothing ran; other parameters are not."""
    preset("smoke")
    assert main(["plan", "p.yaml"]) == 0
    new = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert new[0][:3] == ["phase", "jobs", "done"]
    assert {row[2] for row in new[1:11]} == {"0"}
    monkeypatch.chdir(smoke.project.folder)
    assert main(["plan"]) == 0
    ran = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in ran[:11]] == [row[:2] for row in new[:11]]
    assert all(row[1] == row[2] for row in ran[1:11])
    phases = dict(row[:2] for row in ran[1:11])
    executed = re.search(r"^total +(\d+)$", smoke.output, re.M)
    assert executed and int(phases["all"]) + 1 == int(executed[1])  # and `all` itself
    assert {"corpora", "stage1", "superb", "paper"} < set(phases)


def test_bad_parameters_are_named() -> None:
    with pytest.raises(SkillError, match=r"none\.yaml"):
        costs.run(Path("none.yaml"))
