"""Whatever lies in a manifest, in params.yaml or in a header of weights: it works or is named."""

import ast
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from skill.config import params
from skill.config.load import load
from skill.config.methods import Distances, Method
from skill.data.manifest import COLUMNS, read_manifest
from skill.distillation.stages import targets_of
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.encoder.checkpoint import load_encoder
from skill.similarity.layer_states import read_stack
from skill.superb.predict import Predictor
from skill.utils import files
from skill.utils.errors import SkillError
from skill.workflow.checks import known_size

ROOT = Path(__file__).parents[2]
SMOKE = yaml.safe_load((ROOT / "presets/smoke.yaml").read_text())
QUICK = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SCALAR = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["", "../x", "a b", "1e999", "-1", "$(id)", "x\n", "a" * 300, "é", "null"])
)  # fmt: skip
VALUE = st.recursive(
    SCALAR,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=5,
)


def only_skill_error(run: Callable[[], object], names: Path) -> None:
    """`run` works, or fails with words that name the file."""
    try:
        run()
    except SkillError as error:
        assert names.name in str(error)


CELL = st.text(max_size=12) | st.integers().map(str) | st.sampled_from(
    ["", "0", "-1", "1e3", "9" * 5000, "train", "human", '"', "\x00", "a,b", "\r", "\n", "٣", "NaN"]
)  # fmt: skip


@QUICK
@given(st.lists(st.lists(CELL, min_size=8, max_size=11), max_size=4), st.permutations(COLUMNS))
def test_manifests(tmp_path: Path, rows: list[list[str]], columns: list[str]) -> None:
    path = tmp_path / "m.csv"
    path.write_text("\n".join(",".join(row) for row in [columns, *rows]), encoding="utf-8")
    only_skill_error(lambda: read_manifest(path), path)


@QUICK
@given(st.binary(max_size=300))
def test_manifests_of_any_bytes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(content)
    only_skill_error(lambda: read_manifest(path), path)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*path, index))


PLACES = [place for place in places(SMOKE) if place]


@settings(QUICK, max_examples=250)
@given(st.sampled_from(PLACES), VALUE, st.sampled_from(["replace", "add", "remove"]))
def test_params_with_anything_at_any_place(
    tmp_path: Path, place: tuple[Any, ...], value: Any, how: str
) -> None:
    written = json.loads(json.dumps(SMOKE))
    inside = written
    for key in place[:-1]:
        inside = inside[key]
    if how == "replace":
        inside[place[-1]] = value
    elif how == "remove":
        del inside[place[-1]]
    elif isinstance(inside, dict):
        inside[str(value)[:20]] = value
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(written), encoding="utf-8")
    only_skill_error(lambda: load(path), path)


@settings(QUICK, max_examples=150)
@given(
    st.text(max_size=60)
    | st.text(alphabet="abc:{}[]-,&*!|>%@#'\"? \n", max_size=80)
    | st.binary(max_size=60)
)
def test_params_of_any_text(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    only_skill_error(lambda: load(path), path)


BAD_NAMES = ["../x", "/x", "a/b", "a b", "a;b", "$(id)", "`id`", "a\n", "-a", ".a", "", "A", "a'b"]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("section", ["corpora", "teachers", "students", "methods", "pretraining"])
def test_names_that_could_be_paths_or_commands(tmp_path: Path, section: str, name: str) -> None:
    """They reach file names and command lines."""
    written = json.loads(json.dumps(SMOKE))
    written[section][name] = next(iter(written[section].values()), {"family": "wavlm"})
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(written))
    with pytest.raises(SkillError, match=section):
        load(path)


def framed(value: Any, tail: bytes) -> bytes:
    """A safetensors file with `value` as its header."""
    header = json.dumps(value).encode()
    return len(header).to_bytes(8, "little") + header + tail


def stored(text: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Headers whose metadata hold such a text under `skill`."""
    return st.fixed_dictionaries({"__metadata__": st.fixed_dictionaries({"skill": text})})


TENSOR = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "Q9"]),
        "shape": st.lists(st.integers(-2, 2**62), max_size=3),
        "data_offsets": st.lists(st.integers(-1, 40), min_size=2, max_size=2),
    }
)
CONFIG = VALUE | st.fixed_dictionaries({"ffn": VALUE, "width": VALUE})
ENCODER = st.fixed_dictionaries({"kind": st.just("encoder"), "config": CONFIG})
HEADERS = (
    VALUE
    | st.fixed_dictionaries({"__metadata__": VALUE})
    | stored(st.text(max_size=20))
    | stored(VALUE.map(json.dumps))
    | stored(ENCODER.map(json.dumps))
    | st.fixed_dictionaries({"x": TENSOR})
)
CONTENT = (
    st.binary(max_size=200)
    | st.builds(framed, HEADERS, st.binary(max_size=40))
    | st.integers(0, 2**64 - 1).map(lambda n: n.to_bytes(8, "little") + b"{}")
)
READERS: dict[str, Callable[[Path], object]] = {
    "header": files.read_header,
    "tensors": files.read_tensors,
    "encoder": load_encoder,
    "stack": read_stack,
    "head": lambda path: Predictor(path, None),
    "size": lambda path: known_size(params.Teacher(source=str(path))),
}


@pytest.mark.parametrize("reader", READERS)
def test_headers_of_weights(tmp_path: Path, reader: str) -> None:
    path = tmp_path / "w.safetensors"

    @settings(QUICK, max_examples=200)
    @given(CONTENT)
    def read(content: bytes) -> None:
        path.write_bytes(content)
        only_skill_error(lambda: READERS[reader](path), path)

    read()


SHAPE = st.lists(st.integers(0, 3), max_size=3).map(tuple)
ARRAY = st.builds(
    np.ones, SHAPE, st.sampled_from([np.float32, np.float16, np.int64, np.int32, np.bool_])
)
ACTIVATIONS = st.fixed_dictionaries(
    {"kind": st.just("activations"), "teacher": VALUE, "utterances": VALUE, "seconds": VALUE}
)


@settings(QUICK, max_examples=200)
@given(
    st.dictionaries(st.sampled_from(["states", "utterance", "1", "2"]), ARRAY, max_size=3),
    st.none() | ACTIVATIONS,
)
def test_stacks_of_any_tensors(tmp_path: Path, arrays: dict[str, Any], header: Any) -> None:
    path = tmp_path / "s.safetensors"
    save_file(arrays, path, metadata=header and {"skill": json.dumps(header)})
    only_skill_error(lambda: read_stack(path), path)


LAYER = VALUE | st.tuples(st.sampled_from(["t", "u"]), st.integers(-1, 3) | st.floats())
CLUSTERS = VALUE | st.fixed_dictionaries({"layers": VALUE | st.lists(st.lists(LAYER, max_size=3))})


@QUICK
@given(CLUSTERS)
def test_files_of_clusters(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(content))
    config = EncoderConfig.uniform("hubert", width=16, blocks=2, heads=2, ffn=4, conv=2)
    teachers = {"t": SpeechEncoder(config)}
    method = Method(targets="clusters", distances=Distances(l1=1.0))
    only_skill_error(lambda: targets_of(method, teachers, path), path)


def calls(module: Path) -> Iterator[tuple[str, dict[str, ast.expr]]]:
    """Every call of a module: the name that is called, and its named arguments."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: k.value for k in node.keywords if k.arg}


@pytest.mark.parametrize("module", sorted((ROOT / "src/skill").rglob("*.py")), ids=lambda p: p.stem)
def test_nothing_runs_what_it_reads(module: Path) -> None:
    """No pickle from outside, no shell, no archive that is unpacked blindly."""
    for name, arguments in calls(module):
        said = {key: ast.unparse(value) for key, value in arguments.items()}
        if name == "torch.load":
            assert said.get("weights_only") == "True"
        assert name != "yaml.load"
        assert name != "YAML" or said.get("typ") == "'safe'"
        assert said.get("allow_pickle", "False") == "False"
        assert said.get("shell", "False") == "False"
        assert name not in ("eval", "exec", "os.system", "os.popen", "marshal.load", "joblib.load")
        assert not re.fullmatch(r"(c?[pP]ickle|dill|cloudpickle|shelve)\.\w+", name)
        assert not name.endswith((".extractall", "unpack_archive", ".unsafe_load", ".full_load"))


def test_params_make_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(f"seed: !!python/object/apply:os.mkdir ['{tmp_path}/exploded']\n")
    with pytest.raises(SkillError, match=r"p\.yaml"):
        load(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("rules", sorted((ROOT / "workflow/rules").glob("*.smk")), ids=str)
def test_rules_quote_what_reaches_a_shell(rules: Path) -> None:
    """What may hold any character is quoted; the rest are checked names, numbers and our flags."""
    for command in re.findall(r"    shell:\n((?:        .*\n)+)", rules.read_text()):
        for value in re.findall(r"\{([^{}]+)\}", command):
            if value.startswith(("input", "output", "log")) or value == "params.job":
                assert value.endswith(":q"), f"{rules.name}: {value}"
            else:
                assert re.fullmatch(
                    r"wildcards\.(\w+)|threads|resources\.gpu|params\.\w+(:q)?|\w+\.\w+:q", value
                ), f"{rules.name}: {value}"
