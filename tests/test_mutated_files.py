"""Every reader, on valid files that were changed at random: it works or names the file, in words.

No reader takes more than a GiB for a small file, whatever that says.
"""

import gzip
import json
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import mutations
from hypothesis import HealthCheck, given, settings

from skill.config.jobs import PaperJob, ScoresJob, Upstream
from skill.config.load import load
from skill.config.methods import Distances, Method
from skill.config.params import Clustering
from skill.config.tasks import PROTOCOL, Task
from skill.data import alignments
from skill.data.fbank import WIDTH
from skill.data.manifest import Utterance, read_manifest, write_manifest
from skill.distillation.stages import targets_of
from skill.distillation.student import read_stage1, write_stage1
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.encoder.checkpoint import load_encoder, save_encoder
from skill.paper import figure_data, model_card, tables, verdict
from skill.similarity import regression, steps
from skill.similarity.layer_states import read_stacks
from skill.similarity.matrix import write_matrix
from skill.superb import scores
from skill.superb.evaluate import DOWNSTREAM
from skill.superb.examples import Fold
from skill.superb.predict import Predictor
from skill.superb.vocabulary import read_lexicon
from skill.utils import files
from skill.utils.errors import SkillError, known_content

ROOT = Path(__file__).parents[1]
GIB = 1 << 30
QUICK = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
CONFIG = EncoderConfig.uniform(
    "wavlm", width=16, blocks=2, heads=2, ffn=4, conv=4, pos_conv_kernel=4, pos_conv_groups=2
)


@pytest.fixture(autouse=True)
def limited() -> Iterator[None]:
    """No more than a GiB beyond what is in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + GIB, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def works_or_names(read: Callable[[], object], path: Path, other: str = "") -> None:
    """`read` works, or says what is wrong with the file, or with what is called `other` in it."""
    try:
        read()
    except SkillError as error:
        said = str(error)
        assert path.name in said or (other and other in said), said
        assert len(said) < 4000 + len(str(path)), said


@dataclass(frozen=True)
class Reader:
    """A valid file, and who reads it."""

    name: str
    write: Callable[[Path], object]
    read: Callable[[Path], object]
    wrap: Callable[[bytes], bytes] = bytes


def manifest(path: Path) -> None:
    rows = [
        Utterance("a", "queen", "a.flac", 0, 16_000, "x", text='he said "no", twice'),
        Utterance("b,b", "queen", "a.flac", 16_000, 8_000, "ÿ", "cs", "=1+1", "dev"),
        Utterance("c", "queen", "b.flac", 0, 1, split="test", kind="synthetic"),
    ]
    write_manifest(path, rows)


def clusters(path: Path) -> Any:
    config = EncoderConfig.uniform("hubert", width=16, blocks=2, heads=2, ffn=4, conv=2)
    method = Method(targets="clusters", distances=Distances(l1=1.0))
    return targets_of(method, {"t": SpeechEncoder(config)}, path)


def matrix(path: Path) -> None:
    names = [f"t:{layer}" for layer in range(4)]
    values = torch.tensor([[0.9 ** abs(a - b) for a in range(4)] for b in range(4)])
    write_matrix(path, names, values.double().numpy())


def cluster(path: Path) -> None:
    out = path.parent / "out"
    section = Clustering(num_clusters=2)
    steps.cluster(path, section, out / "c.json", out / "c.csv", out / "k.csv")


def aligned(path: Path) -> None:
    phones = (alignments.Phone("AA", 0, 3), alignments.Phone("B", 3, 10))
    word = alignments.Word("ab", phones)
    alignments.write(path, {"u1": (word,), "u2": (word, word)})


LEXICON = "HELLO HH AH0 L OW1\nWORLD W ER1 L D\nA(2) EY1\n"

TEXTS = [
    Reader("manifest.csv", manifest, read_manifest),
    Reader("cka.csv", matrix, cluster),
    Reader("lexicon.txt", lambda p: p.write_text(LEXICON), lambda p: read_lexicon([p])),
    Reader(
        "params.yaml",
        lambda p: p.write_bytes((ROOT / "presets/smoke.yaml").read_bytes()),
        load,
    ),
    Reader("aligned.csv.gz", aligned, alignments.read),
    Reader(
        "clusters.json",
        lambda p: files.write_json(p, {"layers": [[["t", 0], ["t", 1]], [["t", 2]]]}),
        clusters,
    ),
]


@pytest.mark.parametrize("reader", TEXTS, ids=lambda reader: reader.name)
def test_files_of_text_with_other_bytes(tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / reader.name
    reader.write(path)
    reader.read(path)
    content = path.read_bytes()

    @QUICK
    @given(mutations.contents(content))
    def changed(content: bytes) -> None:
        path.write_bytes(content)
        works_or_names(lambda: reader.read(path), path)

    changed()


def test_alignments_whose_text_is_another(tmp_path: Path) -> None:
    path = tmp_path / "aligned.csv.gz"
    aligned(path)

    @QUICK
    @given(mutations.contents(gzip.decompress(path.read_bytes())))
    def changed(text: bytes) -> None:
        path.write_bytes(mutations.gzipped(text))
        works_or_names(lambda: alignments.read(path), path)

    changed()
    with gzip.open(path, "wb", 1) as file:
        for _ in range(2000):
            file.write(b"x" * (1 << 20))
    works_or_names(lambda: alignments.read(path), path)


def result() -> dict[str, Any]:
    measured = {
        "value": 1.0, "low": 0.5, "high": 2.0, "error": 0.1, "heads": [1.0], "items": 3,
        "clusters": 2, "low_is_good": True, "unit": "%",
    }  # fmt: skip
    return {
        "upstream": "s", "task": "pr", "title": "phones", "official": False, "synthetic": False,
        "protocol": None, "model": {"states": 3, "width": 16, "parameters": 100},
        "metrics": {"per": measured}, "precision": "float32", "examples": {"train": [3]},
    }  # fmt: skip


def jsons(path: Path, value: Any, read: Callable[[], object], other: str = "") -> None:
    """`read` on a file of JSON whose values are changed."""

    @QUICK
    @given(mutations.json_values(value))
    def changed(value: Any) -> None:
        path.write_text(json.dumps(value), encoding="utf-8")
        works_or_names(read, path, other)

    changed()


def test_results_of_tasks(tmp_path: Path) -> None:
    path, job = tmp_path / "pr.json", ScoresJob(upstreams={"s": Upstream(kind="student")})
    out = tmp_path / "t.json", tmp_path / "t.csv"
    jsons(path, result(), lambda: scores.run([path], job, *out), "which the parameters do not")
    path.write_text("[" * 100_000)
    with pytest.raises(SkillError, match="nested too deeply"):
        scores.run([path], job, tmp_path / "t.json", tmp_path / "t.csv")


SUMMARY = {
    "teacher": {"heads": [2, 2], "ffn": [4, 4], "conv_channels": [4] * 7},
    "targets": [{"teacher": [["t", 1], ["t", 2]], "student": [1], "loss": 0.5}],
    "parameters": 100, "teacher_parameters": 400, "loss": 1.0,
}  # fmt: skip


@pytest.mark.parametrize("reader", ["regression", "layers", "card"])
def test_summaries_of_students(tmp_path: Path, reader: str) -> None:
    student, path = tmp_path / "s.safetensors", tmp_path / "s.json"
    save_encoder(SpeechEncoder(CONFIG), student, {"provenance": {"params": {"seed": 1}}})
    job = PaperJob.model_validate({"upstreams": {"s": {"kind": "student"}}, "bootstrap": 10})

    def layers() -> None:
        with known_content(path, student):
            tables.run("layers", job, [path, student], tmp_path / "layers.csv")

    readers: dict[str, Callable[[], object]] = {
        "regression": lambda: regression._targets(path),
        "layers": layers,
        "card": lambda: model_card.text(str(student), tmp_path / "none.csv"),
    }
    jsons(path, SUMMARY, readers[reader])


SCORES = {
    "upstream": "s", "kind": "student", "method": "skill", "base": "s", "teachers": "t",
    "sparsity": "0.75", "seed": "", "parameters": "100", "macs": "5e9", "real_time_factor": "0.01",
    "task": "pr", "title": "phones", "metric": "per", "value": "10", "low": "9", "high": "12",
    "error": "0.5", "head_seeds": "1", "head_deviation": "", "items": "7", "clusters": "3",
    "unit": "%", "low_is_good": "True", "learning_rates": "0.1", "official": "False",
    "synthetic": "False", "protocol": "", "unconfirmed": "", "fbank_cmvn": "", "table": "",
}  # fmt: skip


@pytest.mark.parametrize("name", ["results", "size", "sparsity", "table1", "verdict"])
def test_tables_of_scores(tmp_path: Path, name: str) -> None:
    path, other = tmp_path / "scores.csv", tmp_path / "other.csv"
    rows = [SCORES, SCORES | {"upstream": "f", "base": "f", "kind": "fbank", "value": "50"}]
    files.write_csv(path, rows, list(SCORES))
    files.write_csv(other, [], figure_data.COMPARISONS)
    job = PaperJob.model_validate({"upstreams": {"s": {"kind": "student"}}, "bootstrap": 10})

    def read() -> None:
        with known_content(path):
            if name == "verdict":
                verdict.expected_rows([files.read_csv(path)] * 2)
            else:
                tables.run(name, job, [path, other], tmp_path / "out.csv")

    @settings(QUICK, max_examples=60)
    @given(mutations.contents(path.read_bytes()))
    def changed(content: bytes) -> None:
        path.write_bytes(content)
        works_or_names(read, path, "table1: no student")

    changed()


HEADS = ["sid", "asr", "pr", "asv", "sd", "sf"]


def head(task: Task, labels: list[list[str]]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """A small head on FBANK."""
    fold = Fold([], [], [], labels=tuple(map(tuple, labels)))
    built = DOWNSTREAM[task.kind](task, fold, 160).build(1, WIDTH)
    tensors = {f"fold0.{name}": tensor for name, tensor in built.state_dict().items()}
    header = {"task": task.model_dump(mode="json"), "labels": labels, "upstream": "fbank"}
    return tensors, header


def tensors(
    path: Path,
    content: dict[str, torch.Tensor],
    header: Any,
    read: Callable[[], object],
    other: str = "",
) -> None:
    """`read` on a file of tensors, of which one or the header is changed."""

    @settings(QUICK, max_examples=100)
    @given(mutations.tensor_files(content, header))
    def changed(content: bytes) -> None:
        path.write_bytes(content)
        works_or_names(read, path, other)

    files.write_tensors(path, content, header)
    read()
    changed()


def in_memory(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Copies: what is read is mapped, and the file is about to change."""
    content, header = files.read_tensors(path)
    return {name: tensor.clone() for name, tensor in content.items()}, header


@pytest.mark.parametrize("name", HEADS)
def test_heads(tmp_path: Path, name: str) -> None:
    path = tmp_path / "head.safetensors"
    small = {"hidden": 4, "recurrent": 4 if PROTOCOL[name].recurrent else 0, "pooled": 4}
    task = PROTOCOL[name].model_copy(update=small)
    tensors(path, *head(task, [["a", "b"]]), lambda: Predictor(path, None))


def test_encoders(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    save_encoder(SpeechEncoder(CONFIG), path)
    tensors(path, *in_memory(path), lambda: load_encoder(path))


def test_students_of_stage_1(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    write_stage1(path, SpeechEncoder(CONFIG), {"0.weight": torch.ones(2, 2)}, {})
    tensors(path, *in_memory(path), lambda: read_stage1(path, 0.1))


def test_activations(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    content = {
        "states": torch.randn(6, 3, 4).half(),
        "shift": torch.randn(3, 4),
        "utterance": torch.tensor([0, 0, 0, 1, 1, 1], dtype=torch.int32),
    }
    header = {"kind": "activations", "teacher": "t", "utterances": ["a", "b"], "seconds": [1.0, 2]}
    tensors(path, content, header, lambda: read_stacks([path]), "t:")  # values are of named states
