"""The workflow as its users drive it: real `snakemake`, `dvc` and `git` on the smoke preset.

The tests tell one story in order, on one project folder with a space in its name.
"""

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from conftest import ENVIRONMENT, Project, Smoke

from skill.encoder.checkpoint import load_encoder

ROOT = Path(__file__).parents[2]
NOTHING = "Nothing to be done"


def jobs(output: str) -> dict[str, list[str]]:
    """Rules that ran or would run, and the outputs of each of their jobs."""
    found: dict[str, list[str]] = {}
    for rule, body in re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", output, re.M):
        outputs = re.search(r"output: (.*)", body)
        if outputs:
            found.setdefault(rule, []).append(outputs[1])
    return found


def touched(output: str) -> set[str]:
    """Names of the students and other upstreams that a job was run for."""
    names = (
        r"results/(?:stage1|stage2|clustering|superb)/([a-z0-9.-]+?)[/.](?:json|csv|safet|\w+\.)"
    )
    found = {name.removesuffix("-criterion") for name in re.findall(names, str(jobs(output)))}
    return found - {"scores"}


@pytest.fixture(scope="module")
def project(smoke: Smoke, tmp_path_factory: pytest.TempPathFactory) -> Project:
    base = tmp_path_factory.mktemp("workflow")
    one = smoke.project.copy(base / "a project")
    one.run("dvc", "remote", "add", "-q", "-d", "store", str(base / "a remote"))
    one.commit("remote")
    return one


@pytest.fixture(scope="module")
def first_run(smoke: Smoke) -> str:
    return smoke.output


@pytest.fixture(scope="module")
def first_repro(project: Project, first_run: str) -> str:
    output = project.run("dvc", "repro")
    project.commit("first results")
    project.run("git", "tag", "first")
    project.run("dvc", "push", "-q")
    return output


def test_first_run_makes_everything(project: Project, first_run: str) -> None:
    paper = project.folder / "results/paper"
    names = {path.name for path in paper.iterdir()}
    assert {"results.md", "results.csv", "curves.pdf", "size.png"} <= names
    assert "skill-wavlm" in (paper / "results.md").read_text()
    for rule, outputs in jobs(first_run).items():
        assert outputs, rule
    assert (project.folder / "logs/stage1/skill-wavlm.log").exists()
    assert (project.folder / "benchmarks/snakemake/stage1/skill-wavlm.tsv").exists()
    assert not list((project.folder / "results").rglob(".*"))


def test_snakemake_then_dvc_repro_runs_nothing_twice(project: Project, first_repro: str) -> None:
    assert not jobs(first_repro)
    assert first_repro.count(NOTHING) == 9
    assert (project.folder / "dvc.lock").exists()


def test_a_stage_of_dvc_depends_on_all_that_its_rules_read(project: Project, smoke: Smoke) -> None:
    """Or DVC would skip a stage for which Snakemake has something to do."""
    stages = yaml.safe_load((project.folder / "dvc.yaml").read_text())["stages"]
    phase = r"results/(\w+)/"
    seen = set()
    for body in re.findall(r"^(?:local)?rule \w+:\n((?:    .*\n)*)", smoke.output, re.M):
        read, made = (re.search(rf"{kind}: (.*)", body) for kind in ("input", "output"))
        if not made:
            continue
        own = re.findall(phase, made[1])[0]
        for other in set(re.findall(phase, read[1] if read else "")) - {own}:
            assert f"results/{other}" in stages[own]["deps"], (own, other)
            seen.add((own, other))
    assert {("superb", "corpora"), ("superb", "teachers"), ("paper", "stage1")} <= seen


def test_records_hold_relative_paths_only(smoke: Smoke) -> None:
    project = smoke.project
    records = list((project.folder / ".snakemake/metadata").rglob("*"))
    assert records
    for record in (path for path in records if path.is_file()):
        stored = json.loads(record.read_text())
        for key in ("input", "params", "log"):
            assert str(project.folder) not in json.dumps(stored[key]), record


def test_one_parameter_reruns_what_uses_it(project: Project, first_repro: str) -> None:
    project.replace("num_clusters: 2", "num_clusters: 3")
    output = project.run("dvc", "repro")
    ran = jobs(output)
    assert not {"convert_corpus", "fetch_teacher", "record_states", "compare_layers"} & set(ran)
    assert {"group_layers", "prune_student", "distil_student", "evaluate"} <= set(ran)
    assert {"collect_scores", "tabulate_results", "draw_curves"} <= set(ran)
    assert touched(output) == {"skill-wavlm"}
    project.commit("three clusters")
    project.run("dvc", "push", "-q")


def test_fresh_clone_has_nothing_to_do_then_reruns_one_student(
    project: Project, first_repro: str, tmp_path: Path
) -> None:
    folder = tmp_path / "a clone"
    project.run("git", "clone", "-q", str(project.folder), str(folder))
    clone = Project(folder)
    clone.run("dvc", "pull", "-q")
    assert NOTHING in clone.run("snakemake", "-n")
    by_name = "import skill; print(skill.load('skill-wavlm').num_parameters())"
    pulled = clone.run("python", "-c", by_name)
    kept = load_encoder(project.folder / "results/stage2/skill-wavlm.safetensors")
    assert pulled.split()[-1] == str(kept.num_parameters())
    clone.replace(
        "dphubert-wavlm: {method: dphubert,",
        "dphubert-wavlm: {stage2: {learning_rate: 3e-4}, method: dphubert,",
    )
    output = clone.run("dvc", "repro")
    assert touched(output) == {"dphubert-wavlm"}
    assert "prune_student" not in jobs(output)
    assert len(jobs(output)["distil_student"]) == 1


def test_old_results_come_back(project: Project, first_repro: str) -> None:
    project.run("git", "checkout", "-q", "first", "--", "params.yaml", "dvc.lock")
    project.run("dvc", "checkout", "-q")
    assert NOTHING in project.run("snakemake", "-n")
    project.run("git", "checkout", "-q", "HEAD", "--", "params.yaml", "dvc.lock")
    project.run("dvc", "checkout", "-q")


@pytest.mark.parametrize("where", [[], ["--temp"]], ids=["workspace", "temp"])
def test_experiment(project: Project, first_repro: str, where: list[str]) -> None:
    steps = 5 + len(where)
    output = project.run(
        "dvc", "exp", "run", *where, "-n", f"steps{steps}", "-S", f"superb.tasks.sid.steps={steps}"
    )
    ran = jobs(output)
    assert {"evaluate", "collect_scores"} <= set(ran)
    assert not {"prune_student", "distil_student", "group_layers"} & set(ran)
    shown = json.loads(project.run("dvc", "exp", "show", "--json"))
    assert f"steps{steps}" in json.dumps(shown)
    if not where:
        metrics = project.run("dvc", "metrics", "diff", "--all")
        assert "sid.accuracy" in metrics
        assert "superb.tasks.sid.steps" in project.run("dvc", "params", "diff")
        plots = json.loads(project.run("dvc", "plots", "diff", "first", "--json"))
        assert not plots.get("errors")
        curve = plots["data"]["results/paper/curves.csv"]
        assert {"first", "workspace"} == {rev for plot in curve for rev in plot["revisions"]}
        project.run("git", "checkout", "-q", ".")
        project.run("dvc", "checkout", "-q")


def test_comment_reruns_nothing_changed_constant_does(project: Project, first_repro: str) -> None:
    module = project.folder / "src/skill/distillation/losses.py"
    before = module.read_text()
    try:
        module.write_text(before + "\n# a remark\n")
        assert NOTHING in project.run("snakemake", "-n")
        module.write_text(before + "\n_UNUSED = 3\n")
        assert {"prune_student", "distil_student"} <= set(jobs(project.run("snakemake", "-n")))
    finally:
        module.write_text(before)


def test_goes_on_after_kill(project: Project, first_repro: str) -> None:
    """kill -9 leaves a lock and a half-done job: the next run goes on by itself."""
    project.replace("sparsity: 0.5", "sparsity: 0.45")
    command = ["snakemake", "--cores", "2", "results/stage1/skill-wavlm.csv"]
    running = subprocess.Popen(
        command, cwd=project.folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    lock = project.folder / ".snakemake/locks"
    deadline = time.monotonic() + 120
    while not any(lock.glob("*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    busy = project.run(*command, code=1)
    assert "Wait until it has ended" in busy
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert any(lock.glob("*"))
    output = project.run(*command)
    assert "prune_student" in jobs(output)
    assert NOTHING in project.run("snakemake", "-n", *command[3:])
    project.run("git", "checkout", "-q", "--", "params.yaml")
    project.run("dvc", "checkout", "-q", "--force")


def test_directory_and_preset_from_the_command_line(project: Project, tmp_path: Path) -> None:
    """The full-scale DAG is built; a run beside the checkout finds code and parameters."""
    elsewhere = tmp_path / "run elsewhere"
    elsewhere.mkdir()
    output = project.run(
        "snakemake", "-n", "--config", "params=presets/paper.yaml", "--directory", str(elsewhere)
    )
    counts = dict(re.findall(r"^(\w+) +(\d+)$", output, re.M))
    tasks = ("pr", "asr", "ks", "qbe", "sid", "asv", "sd", "ic", "sf", "er")
    for task in tasks:
        assert f"results/superb/wavlm-base-plus/{task}.json" in output
    assert int(counts["fetch_teacher"]) == 2
    assert int(counts["evaluate"]) % len(tasks) == 0
    assert "results/corpora/librispeech-960.csv" in output


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "compare_with: dphubert",
            "compare_with: db",
            "students.skill-wavlm.compare_with: there is no student db-wavlm",
        ),
        ("linkage:", "linkages:", "clustering.linkages: unknown key"),
        ("teachers: [wavlm-random]", "teachers: [wavlm]", "students.skill-wavlm.teachers.0"),
        ("num_clusters: 2", "num_clusters: 9", "students.skill-wavlm.clustering.num_clusters: 9"),
        ("steps: 3", "steps: three", "stage1.steps"),
    ],
)
def test_bad_parameters_stop_before_any_job(
    project: Project, tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = (ROOT / "presets/smoke.yaml").read_text()
    assert old in text
    bad = tmp_path / "bad.yaml"
    bad.write_text(text.replace(old, new, 1))
    output = project.run("snakemake", "-n", "--config", f"params={bad}", code=1)
    assert f"{bad}: {message}" in output
    assert "Traceback" not in output


def test_failed_job_is_reported_as_failed(project: Project, tmp_path: Path) -> None:
    """Not as one that "completed successfully" and left no output: `tee` must not hide it."""
    text = (ROOT / "presets/smoke.yaml").read_text()
    assert "min_seconds: 0.4" in text
    bad = tmp_path / "bad.yaml"
    bad.write_text(text.replace("min_seconds: 0.4", "min_seconds: 15.0"))
    output = project.run(
        "snakemake", "results/stage1/dphubert-wavlm.safetensors", "--cores", "1",
        "--config", f"params={bad}", "--directory", str(tmp_path / "run here"), code=1,
    )  # fmt: skip
    assert "error: results/corpora/beeps.csv: no train utterance of 15.0" in output
    assert "non-zero exit code" in output
    assert "completed successfully" not in output
