"""Parameters: every mistake is one readable line with the key's path; students are resolved."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from skill.config.load import load, read_yaml
from skill.config.types import parse
from skill.utils.errors import SkillError
from skill.utils.files import canonical_json
from skill.workflow.checks import load_checked

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "presets/smoke.yaml"
FILES = [ROOT / "params.yaml", *sorted((ROOT / "presets").glob("*.yaml"))]


def smoke() -> dict[str, Any]:
    return read_yaml(SMOKE)


def saved(tmp_path: Path, value: Any) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(value), encoding="utf-8")
    return path


def put(value: dict[str, Any], path: str, new: Any) -> dict[str, Any]:
    """`value` with the key at a dotted path replaced."""
    *parents, last = path.split(".")
    place = value
    for key in parents:
        place = place[key]
    place[last] = new
    return value


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_scale_is_valid(path: Path) -> None:
    assert load(path).students


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("groping", {}, "groping: unknown key"),
        ("stage1.learning_rat", 1e-3, "stage1.learning_rat: unknown key"),
        ("stage1.steps", "many", "stage1.steps: Input should be a valid integer (not 'many')"),
        ("stage1.steps", 1.5, "stage1.steps: Input should be a valid integer"),
        ("stage1.steps", True, "stage1.steps: Input should be a valid integer"),
        ("stage1.warmup", 100, "stage1: warmup 100 is longer than steps 3"),
        ("stage1.sparsity_warmup", 4, "stage1: sparsity_warmup 4 is longer than steps 3"),
        ("stage2.log_every", 5, "stage2: validate_every 2 is no multiple of log_every 5"),
        ("stage1.clip", 0.0, "stage1.clip: "),
        ("clustering.linkage", "centroid", "clustering.linkage: Input should be 'average'"),
        ("grouping", {"num_clusters": 4}, "grouping: grouping is called clustering since"),
        ("clustering.num_clusters", 0, "clustering.num_clusters"),
        (
            "clustering.num_clusters",
            4,
            "students.skill-wavlm.clustering.num_clusters: 4 clusters of 3",
        ),
        ("students.skill-wavlm.teachers", ["x"], "students.skill-wavlm.teachers.0: there is no"),
        ("students.skill-wavlm.teachers", [], "students.skill-wavlm.teachers: "),
        ("students.skill-wavlm.method", "x", "students.skill-wavlm.method: there is no method x"),
        ("students.skill-wavlm.sparsity", 1.0, "students.skill-wavlm.sparsity"),
        ("students.skill-wavlm.sparsity", None, "students.skill-wavlm.sparsity: needs a sparsity"),
        ("students.skill-wavlm.stage1", {"x": 1}, "students.skill-wavlm.stage1.x: unknown key"),
        (
            "students.skill-wavlm.clustering",
            {"x": 1},
            "students.skill-wavlm.clustering.x: unknown key",
        ),
        ("students.skill-wavlm.method_overrides", {"x": 1}, "wavlm.method_overrides.x: unknown"),
        (
            "students.skill-wavlm.objective",
            {"x": 1},
            "is called method_overrides since version 0.2",
        ),
        ("students.skill-wavlm.compare_with", "x", "compare_with: there is no student x"),
        ("students.skill-wavlm.compare_with", "skill-wavlm", "not compared with itself"),
        ("paper.baseline", "dphubert", "every student says compare_with"),
        ("stage1.learning_rate", float("inf"), "stage1.learning_rate: Input should be"),
        ("stage1.batch_seconds", 1e300, "stage1.batch_seconds: Input should be"),
        ("stage1.steps", 10**12, "stage1.steps: Input should be less"),
        ("unlabelled.min_seconds", 99.0, "unlabelled: min_seconds 99 is more than max_seconds"),
        ("teachers.wavlm-random", {"random": {"family": "wavlm", "heads": 3}}, "no multiple of"),
        ("teachers.wavlm-random", {"random": {"family": "wavlm", "width": 10**6}}, "width: Input"),
        ("teachers." + 101 * "a", {"random": {"family": "wavlm"}}, "at most 100 characters"),
        ("students.dphubert-wavlm.clustering", {"num_clusters": 2}, "clustering: dphubert has no"),
        ("students.wavlm-random", {}, "students.wavlm-random.method: missing"),
        ("students.Bad Name", {}, "students.Bad Name"),
        ("teachers.fbank", {"random": {"family": "hubert"}}, "teachers.fbank"),
        ("teachers.a+b", {"random": {"family": "hubert"}}, "teachers.a+b"),
        ("teachers.wavlm-random", {"source": "x", "hub": "y"}, "exactly one of source"),
        ("teachers.wavlm-random", {"hub": "y"}, "hub and revision belong together"),
        ("teachers.wavlm-random", {"hub": "y", "revision": "main"}, "40 digits of a commit"),
        ("teachers.wavlm-random.retrain", True, "there is no pretraining.wavlm-random"),
        ("methods.dphubert.targets", [{"layer": 7}], "students.dphubert-wavlm.method"),
        ("unlabelled.corpora", ["nowhere"], "unlabelled.corpora.0: there is no corpus nowhere"),
        ("superb.tasks.sid.corpora", ["nowhere"], "superb.tasks.sid.corpora"),
        ("superb.tasks.sid.stepz", 3, "superb.tasks.sid.stepz"),
        ("superb.tasks.singing", {}, "superb.tasks.singing: unknown task"),
        ("students", [1], "students: has no students"),
        ("students.skill-wavlm.clustering", {"state0": "own", "num_clusters": 1}, "2 or more"),
        ("students.skill-wavlm.calibration_frames", [10**6], "calibration_frames: 1000000 frames"),
        ("students.skill-wavlm.similarity", {"max_frames": 10**6}, "similarity.max_frames: "),
        ("students.skill-wavlm.seed", 5, "compare_with: no seed in common with dphubert-wavlm"),
        ("corpora.librispeech", {"kind": "folder"}, "corpora.librispeech.kind: folder"),
    ],
)
def test_mistake_is_named(tmp_path: Path, key: str, value: Any, message: str) -> None:
    path = saved(tmp_path, put(smoke(), key, value))
    with pytest.raises(SkillError) as error:
        load_checked(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no sections"),
        ("- 1", "has no sections"),
        ("a: [", "no valid YAML"),
        ("seed: 1\nseed: 2\n", "seed: stands twice"),
        ("seed: &a [*a]\n", "more than 100000 values"),
        (
            "a: &a [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]\n"
            + "".join(
                f"{y}: &{y} [{', '.join(9 * [f'*{x}'])}]\n" for x, y in pairwise("abcdefghij")
            ),
            "more than 100000 values",
        ),
        ("a: " + 5000 * "[" + 5000 * "]", "no valid YAML"),
        ("a: !!python/object/apply:os.system [id]", "no valid YAML"),
        ("a: 1\n---\nb: 2\n", "no valid YAML"),
        ("a: \x00", "no valid YAML"),
        (2**20 * "#" + "\n", "more than 1 MiB"),
    ],
)
def test_bad_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(SkillError, match=message):
        load(path)
    with pytest.raises(SkillError, match="cannot be read"):
        load(tmp_path / "missing.yaml")


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["seed", "corpora", "teachers", "stage1", "clustering", "students", "superb"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
        max_leaves=8,
    ),
)
def test_any_value_is_accepted_or_refused_in_words(key: str, value: Any) -> None:
    from skill.config.students import expand

    try:
        expand(smoke() | {key: value})
    except SkillError as error:
        assert str(error)


def test_overrides_are_merged_into_the_defaults(tmp_path: Path) -> None:
    value = put(smoke(), "students.skill-wavlm.stage1", {"learning_rate": 1e-3})
    loaded = load(saved(tmp_path, value))
    one, other = loaded.students["skill-wavlm"], loaded.students["dphubert-wavlm"]
    assert one.stage1.learning_rate == 1e-3
    assert one.stage1.model_copy(update={"learning_rate": 2e-4}) == other.stage1 == loaded.stage1
    assert one.clustering == loaded.clustering
    assert other.clustering is None and other.similarity is None


def test_lists_expand_to_students(tmp_path: Path) -> None:
    entry = {
        "method": "skill", "teachers": ["wavlm-random"], "sparsity": [0.5, 0.625],
        "num_clusters": [2, 3], "calibration_frames": [100], "seeds": [1, 2],
    }  # fmt: skip
    loaded = load(saved(tmp_path, put(smoke(), "students", {"a": entry})))
    assert len(loaded.students) == 8
    student = loaded.students["a-s62.5-k3-n100-seed2"]
    assert (student.base, student.sparsity, student.seed) == ("a-s62.5-k3-n100", 0.625, 2)
    assert student.clustering is not None and student.clustering.num_clusters == 3
    assert student.similarity is not None and student.similarity.max_frames == 100


def test_two_students_of_one_name_are_refused(tmp_path: Path) -> None:
    entry = {"method": "skill", "teachers": ["wavlm-random"]}
    students = {"a": entry | {"sparsity": [0.5]}, "a-s50": entry | {"sparsity": 0.5}}
    with pytest.raises(SkillError, match="a second student would be named a-s50"):
        load(saved(tmp_path, put(smoke(), "students", students)))


def test_job_survives_the_command_line() -> None:
    """Canonical JSON does not depend on the order of keys, and gives the same job back."""
    loaded = load(SMOKE)
    section = loaded.students["dphubert-wavlm"].definition
    text = canonical_json(section.model_dump())
    assert parse(type(section), json.loads(text)) == section
    turned = dict(reversed(list(section.model_dump().items())))
    assert canonical_json(turned) == text


def test_paper_preset_has_the_published_schedule() -> None:
    """DPHuBERT's run.sh: 50,000 and 25,000 updates of 640 s, and its learning rates."""
    loaded = load(ROOT / "presets/paper.yaml")
    one, two = loaded.stage1, loaded.stage2
    assert (one.steps, one.warmup, one.sparsity_warmup) == (50_000, 15_000, 5_000)
    assert (one.learning_rate, one.gate_learning_rate, one.clip) == (2e-4, 0.02, 10.0)
    assert (two.steps, two.warmup, two.learning_rate) == (25_000, 5_000, 1e-4)
    assert one.batch_seconds == two.batch_seconds == 640
    assert len(loaded.superb.tasks) == 10
    assert {s.teachers for s in loaded.students.values()} >= {
        ("wavlm-base-plus",),
        ("hubert-base",),
    }


def test_no_torch_is_imported() -> None:
    code = "import sys, skill.utils.provenance, skill.cli; "
    code += "from skill.config.load import load; from skill.workflow import checks, outputs; "
    code += f"outputs.figures(load({str(SMOKE)!r})); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"


def test_the_papers_schedule_of_every_parameter_group() -> None:
    """DPHuBERT's numbers at steps 0, 1, the end of the warm-up, the middle and the end."""
    from skill.distillation.distiller import Distiller
    from skill.distillation.gates import attach
    from skill.distillation.sparsity import SparsityTarget
    from skill.distillation.targets import build_targets
    from skill.encoder import EncoderConfig, SpeechEncoder
    from skill.training.loop import learning_rate_factor

    student = load(ROOT / "presets/paper.yaml").students["dphubert-wavlm-s75"]
    stage = student.stage1
    encoder = SpeechEncoder(
        EncoderConfig.uniform("wavlm", width=32, blocks=12, heads=2, ffn=32, conv=8)
    )
    attach(encoder, student.definition.prune)
    target = SparsityTarget(encoder, 0.75, stage.sparsity_warmup)
    targets = build_targets(student.definition, {"t": (12, 32)})
    distiller = Distiller(encoder, {"t": encoder}, targets, student.definition, stage, target)
    groups = distiller.parameter_groups()
    assert [group.get("maximize", False) for group in groups] == [False, False, True]
    table = {
        0: (0.0, 0.0, 0.0, 0.0),
        1: (2e-4 / 15_000, 0.02 / 15_000, 0.02 / 15_000, 0.75 / 5000),
        5000: (2e-4 / 3, 0.02 / 3, 0.02 / 3, 0.75),
        15_000: (2e-4, 0.02, 0.02, 0.75),
        25_000: (2e-4 * 25 / 35, 0.02 * 25 / 35, 0.02 * 25 / 35, 0.75),
        50_000: (0.0, 0.0, 0.0, 0.75),
    }
    for step, (*rates, sparsity) in table.items():
        factor = learning_rate_factor(step, stage.warmup, stage.steps)
        assert [group["lr"] * factor for group in groups] == pytest.approx(rates)
        assert target.target(step) == pytest.approx(sparsity)
    second = student.stage2
    rates = [
        second.learning_rate * learning_rate_factor(step, second.warmup, second.steps)
        for step in (0, 1, 5000, 15_000, 25_000)
    ]
    assert rates == pytest.approx([0.0, 1e-4 / 5000, 1e-4, 0.5e-4, 0.0])
