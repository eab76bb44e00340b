"""The pages under docs/: their commands are run, their changes applied, their names looked up.

A page's blocks are followed in order, in a copy of a project in which the smoke preset was run:
`sh` line by line, `python` as programs, or as additions to the file that their first line names,
`yaml` as additions to the section of `params.yaml` that their first line names.
"""

import importlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import Project, Smoke
from helpers.encoders import irregular
from helpers.s3prl import s3prl_stand_in

from skill.encoder import checkpoint
from skill.utils.files import read_csv, read_json

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.glob("*.md"))
FOLLOWED = ["tour.md", "analyze.md", "how-to-teacher.md", "how-to-task.md", "how-to-method.md"]
FOLLOWED += ["take-home.md", "calibration.md"]
SMOKE = {  # the same things at that scale
    "wavlm-sample": "wavlm-random",
    "[queen]": "[beeps]",
    "sparsity: 0.75": "sparsity: 0.5",
}
DRY = {"make reproduce": "make -n reproduce"}  # what would take too long, and its dry run


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of the page's fenced blocks."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S)


def follow(project: Project, page: str) -> dict[str, str]:
    """Do what the page says; {command: what it printed}."""
    printed = {}
    for language, text in blocks(page):
        if language == "text":
            continue
        for name, other in SMOKE.items():
            text = text.replace(name, other)
        head, _, rest = text.partition("\n")
        if language == "sh":
            for line in text.splitlines():
                command = DRY.get(line, line)
                printed[line] = project.run("bash", "-o", "pipefail", "-ec", command)
        elif language == "yaml":
            section = re.fullmatch(r"# under (\w+):", head)
            assert section, head
            depth = "  " if section[1] == "tasks" else ""
            insert(project.folder / "params.yaml", rf"^{depth}{section[1]}:.*\n", rest)
        elif place := re.fullmatch(r"# at the end of (\S+)", head):
            insert(project.folder / place[1], r"\Z", f"\n\n{rest}")
        elif place := re.fullmatch(r'# after "(.*)" in (\S+)', head):
            insert(project.folder / place[2], f"^{re.escape(place[1])}\n", rest)
        else:
            assert language == "python", language
            printed[text] = project.run("python", "-c", text)
    return printed


def insert(file: Path, after: str, addition: str) -> None:
    text = file.read_text()
    places = list(re.finditer(after, text, re.M))
    assert len(places) == 1, (file, after, len(places))
    file.write_text(text[: places[0].end()] + addition + text[places[0].end() :])


@pytest.fixture
def project(smoke: Smoke, tmp_path: Path) -> Project:
    return smoke.project.copy(tmp_path / "a clone")


def test_tour(project: Project) -> None:
    printed = follow(project, "tour.md")
    assert "Nothing to be done" in printed["snakemake -n"]
    assert "skill-wavlm" in printed["cat results/paper/results.md"]
    paper = project.folder / "results/paper"
    assert (project.folder / "layers.png").read_bytes() == (paper / "layers.png").read_bytes()
    assert "skill table layers" in printed["snakemake -n -p --force results/paper/layers.csv"]
    changed = next(text for line, text in printed.items() if line.startswith("dvc exp run"))
    assert "distil_student" in changed and "fetch_teacher" not in changed
    assert "output: results/stage1/dphubert-wavlm" not in changed
    assert len(read_json(project.folder / "results/clustering/skill-wavlm.json")["layers"]) == 3
    assert "clustering.num_clusters" in printed["dvc params diff"]
    assert "sid.accuracy" in printed["dvc metrics diff --all"]
    plots = next(text for line, text in printed.items() if line.startswith("dvc plots"))
    assert "plots/index.html" in plots
    page = (project.folder / "plots/index.html").read_text()
    assert "Distillation loss" in page and "First metric of each task" in page
    assert all(page.count(f'"{name}"') > 3 for name in ("skill-wavlm", "dphubert-wavlm", "sid"))
    loaded = next(text for line, text in printed.items() if "skill.load" in line)
    assert (
        int(loaded) == read_json(project.folder / "results/stage2/skill-wavlm.json")["parameters"]
    )
    for name in re.findall(r"^\| `([a-z0-9]+)[`-]", (DOCS / "tour.md").read_text(), re.M):
        present = list(paper.glob(f"{name}*"))
        assert bool(present) == (name not in ("sparsity", "table1")), name


def test_analyze(tmp_path: Path) -> None:
    project = Project(tmp_path)
    (tmp_path / "src").symlink_to(ROOT / "src")
    printed = follow(project, "analyze.md")
    said = printed["skill analyze states.safetensors"]
    assert "cluster 1: states:0, states:1, states:2" in said
    made = {path.name for path in tmp_path.iterdir()}
    page = (DOCS / "analyze.md").read_text()
    for stem in re.findall(r"^\| `states(-\w+)`", page, re.M):
        assert {f"states{stem}.{kind}" for kind in ("csv", "pdf", "png")} <= made, stem
    assert {"states-clusters.json", "rbf-clusters.json", "two-clusters.json"} <= made


def test_take_home(tmp_path: Path) -> None:
    """With a small student of that name, and what `test_export_s3prl` has in the place of s3prl."""
    project = Project(tmp_path)
    (tmp_path / "src").symlink_to(ROOT / "src")
    checkpoint.save_encoder(irregular(), tmp_path / "results/stage2/skill-wavlm.safetensors")
    package = s3prl_stand_in(tmp_path / "s3prl/s3prl")
    printed = follow(project, "take-home.md")
    said = next(text for line, text in printed.items() if line.endswith("--onnx"))
    assert "model.onnx: differs from torch by" in said
    assert (package / "features.pt").exists()
    for made in (
        "skill-wavlm/modeling_skill.py",
        "skill-wavlm-onnx/model-int8.onnx",
        "skill-wavlm-s3prl/expert.py",
        "skill-wavlm-dphubert/skill-wavlm.pth",
        "dphubert.safetensors",
    ):
        assert (tmp_path / made).exists(), made


def test_calibration(project: Project) -> None:
    would = follow(project, "calibration.md")["snakemake -n studies"]
    assert "vary_calibration" in would and "resample_utterances" in would


def test_how_to_add_a_teacher(project: Project) -> None:
    printed = follow(project, "how-to-teacher.md")
    states = {row["state"] for row in read_csv(project.folder / "results/similarity/my-hubert.csv")}
    assert states == {f"my-hubert:{layer}" for layer in range(4)}
    would = printed["snakemake -n results/stage2/skill-mine.safetensors"]
    assert "prune_student" in would and "dphubert-wavlm" not in would
    assert (project.folder / "results/paper/similarity-my-hubert.png").exists()
    teacher = ("snakemake", "-n", "results/teachers/my-hubert.safetensors")
    assert "Nothing to be done" in project.run(*teacher)
    with (project.folder / "my-hubert/config.json").open("a") as file:
        file.write("\n")
    assert "fetch_teacher" in project.run(*teacher)


def test_how_to_add_a_task(project: Project) -> None:
    soundfile.write(
        project.folder / "recording.wav", np.random.default_rng(0).normal(size=8000), 8000
    )
    printed = follow(project, "how-to-task.md")
    said = next(text for line, text in printed.items() if "skill predict" in line)
    assert said.startswith("recording.wav\t")
    result = read_json(project.folder / "results/superb/fbank/length.json")
    assert 0 <= result["metrics"]["accuracy"]["value"] <= 100
    assert not result["official"]
    items = read_csv(project.folder / "results/superb/fbank/length.csv")
    assert len(items) == result["metrics"]["accuracy"]["items"]


def test_how_to_write_a_method(project: Project) -> None:
    printed = follow(project, "how-to-method.md")
    made = read_json(project.folder / "results/stage2/first-two-wavlm.json")
    assert [target["student"] for target in made["targets"]] == [[1], [2]]
    assert "draw_ablation" in printed["snakemake -n results/paper/ablation.png"]
    assert (project.folder / "results/stage1/smooth-wavlm.safetensors").exists()


def test_every_page_with_commands_is_followed() -> None:
    assert {page.name for page in PAGES if blocks(page.name)} <= set(FOLLOWED)


def test_every_page_is_in_the_index_and_every_link_exists() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert page.name == "README.md" or f"]({page.name})" in index, page.name
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            assert link.startswith("http") or (page.parent / link).exists(), (page.name, link)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_name_in_the_code_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`(skill(?:\.\w+)+)`", text):
        parts = name.split(".")
        found = importlib.import_module("skill")
        for index, part in enumerate(parts[1:], start=1):
            if not hasattr(found, part):
                importlib.import_module(".".join(parts[: index + 1]))
            found = getattr(found, part)
    for path in re.findall(r"`((?:src|tests|data|presets)/[\w/.-]+)`", text):
        assert (ROOT / path).exists(), path


@pytest.fixture(scope="module")
def report(smoke: Smoke, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the smoke run."""
    place = tmp_path_factory.mktemp("report")
    copy = smoke.project.copy(place / "a clone")
    copy.run("snakemake", "--report", "report.html")
    copy.run("dvc", "plots", "show", "--out", "plots")
    return copy.folder / "report.html"


def variable(page: str, name: str) -> Any:
    """The value of a JSON variable in a page's script."""
    start = page.rindex(f"var {name} = {{") + len(f"var {name} = ")
    return json.JSONDecoder().raw_decode(page, start)[0]


def test_the_report_has_every_figure_with_a_caption(report: Path) -> None:
    """Each picture is in the page, once, with category, caption and labels."""
    text = report.read_text(encoding="utf-8")
    entries, categories = (variable(text, name) for name in ("results", "categories"))
    shown = {Path(path).name: entry for path, entry in entries.items()}
    paper = report.parent / "results/paper"
    assert set(shown) == {path.name for path in paper.glob("*.png")} | {"results.html"}
    assert {"regression.png", "published.png", "layers.png", "curves.png", "size.png"} <= set(shown)
    assert set(categories) == {
        "1 Layers of the teachers", "2 Pruning and distillation", "3 Results"
    }  # fmt: skip
    filed = [Path(p).name for parts in categories.values() for ps in parts.values() for p in ps]
    assert sorted(filed) == sorted(shown)
    for name, entry in shown.items():
        assert len(entry["caption"]) > 80 and "{{" not in entry["caption"], name
        assert set(entry["labels"]) == {"figure", "of"}, name
