"""Files of strangers: whatever is in them, an encoder or one sentence, in little memory."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import ENVIRONMENT, ROOT
from helpers.encoders import gated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from skill.distillation.pruning import prune
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.encoder.checkpoint import load_encoder, save_encoder
from skill.encoder.formats.dphubert import write_dphubert
from skill.utils.errors import SkillError

QUICK = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
VALUES: list[Any] = [
    None, True, "x", 0, -1, 3, 10**9, 10**40, 0.5, float("nan"), float("inf"), [], {}, [0, 0],
    [[-1, 0]], [["0"]], [10**9] * 7, [0] * 7, [1.5] * 7, [1] * 20000, [[[[[[]]]]]],
]  # fmt: skip
OURS = EncoderConfig.uniform(
    "wavlm", width=32, blocks=2, heads=4, ffn=16, conv=8, pos_conv_kernel=4, pos_conv_groups=2
).to_dict()
THEIRS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "conv_dim",
    "conv_stride", "conv_kernel", "num_feat_extract_layers", "feat_extract_norm",
    "num_conv_pos_embedding_groups", "do_stable_layer_norm", "num_buckets", "layer_norm_eps",
    "feat_proj_dropout", "hidden_act", "model_type",
)  # fmt: skip


def small() -> SpeechEncoder:
    torch.manual_seed(0)
    return SpeechEncoder(EncoderConfig.from_dict(OURS)).eval()


def loads_or_says_why(path: Path) -> None:
    """In one line that begins with the path, or with a file of the folder."""
    try:
        load_encoder(path)
    except SkillError as error:
        assert str(error).startswith(str(path)), error
        assert "\n" not in str(error) and len(str(error)) < 1500 + len(str(path))


@pytest.mark.parametrize("field", sorted(OURS))
def test_our_header_with_any_value(tmp_path: Path, field: str) -> None:
    path = tmp_path / "a.safetensors"
    tensors = small().state_dict()
    for value in VALUES:
        header = {"kind": "encoder", "config": OURS | {field: value}}
        save_file(tensors, path, {"skill": json.dumps(header)})
        loads_or_says_why(path)


@pytest.mark.parametrize("config", [*VALUES, {"width": 3}, OURS | {"hat": 1}], ids=repr)
def test_our_header_without_a_configuration(tmp_path: Path, config: Any) -> None:
    path = tmp_path / "a.safetensors"
    for header in ({"kind": "encoder", "config": config}, {"kind": "encoder"}, {"kind": config}):
        save_file({"x": torch.ones(1)}, path, {"skill": json.dumps(header)})
        with pytest.raises(SkillError, match=r"a\.safetensors: "):
            load_encoder(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small WavLM of `transformers`."""
    config = transformers.WavLMConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=16,
        conv_dim=[8] * 7, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("a model")
    transformers.WavLMModel(config).save_pretrained(path)
    return path


@pytest.mark.parametrize("field", THEIRS)
def test_a_config_of_transformers_with_any_value(folder: Path, field: str) -> None:
    written = (folder / "config.json").read_text()
    try:
        for value in VALUES:
            (folder / "config.json").write_text(json.dumps(json.loads(written) | {field: value}))
            loads_or_says_why(folder)
        settings = json.loads(written)
        settings.pop(field, None)
        (folder / "config.json").write_text(json.dumps(settings))
        loads_or_says_why(folder)
    finally:
        (folder / "config.json").write_text(written)


def ours(folder: Path) -> Path:
    save_encoder(small(), folder / "a.safetensors")
    return folder / "a.safetensors"


def dphubert(folder: Path) -> Path:
    write_dphubert(prune(gated("wavlm", ("conv", "head", "ffn"))), folder / "a.pth")
    return folder / "a.pth"


def pickled(folder: Path) -> Path:
    torch.save(small().state_dict(), folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps({"model_type": "skill", "encoder": OURS}))
    return folder / "pytorch_model.bin"


def settings_file(folder: Path) -> Path:
    return pickled(folder).parent / "config.json"


@pytest.mark.parametrize("store", [ours, dphubert, pickled, settings_file])
def test_a_valid_file_with_bytes_changed(tmp_path: Path, store: Callable[[Path], Path]) -> None:
    path = store(tmp_path)
    content = path.read_bytes()
    places = st.integers(0, min(4000, len(content) - 1)) | st.integers(0, len(content) - 1)
    target = tmp_path if path.name == "config.json" else path

    @QUICK
    @given(st.dictionaries(places, st.integers(0, 255), max_size=4), st.none() | places)
    def read(changes: dict[int, int], end: int | None) -> None:
        changed = bytearray(content)
        for place, value in changes.items():
            changed[place] = value
        path.unlink()  # tensors of the file before may still be mapped
        path.write_bytes(changed[:end])
        loads_or_says_why(target)

    read()


@pytest.mark.parametrize("key", ["config", "state_dict"])
def test_a_dphubert_file_with_any_value(tmp_path: Path, key: str) -> None:
    content = torch.load(dphubert(tmp_path), weights_only=True)
    for name in list(content[key])[:36:3]:
        for value in (*VALUES[:14:2], torch.zeros(2), torch.zeros(2, dtype=torch.bool)):
            torch.save(content | {key: content[key] | {name: value}}, tmp_path / "b.pth")
            loads_or_says_why(tmp_path / "b.pth")


MEMORY = """
import json, resource, sys
from pathlib import Path
from skill.encoder.checkpoint import load_encoder
from skill.utils.errors import SkillError
load_encoder(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
said = []
for path in sys.argv[2:]:
    try:
        load_encoder(path)
    except SkillError as error:
        said.append(str(error))
print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, said]))
"""


def test_no_memory_is_taken_for_what_a_file_only_claims(tmp_path: Path) -> None:
    """Architectures of up to terabytes over a few kilobytes of tensors."""
    tensors = small().state_dict()
    paths = []
    for number, claims in enumerate(
        (
            {"width": 2**20, "total_heads": 4},
            {"ffn": [2**20] * 2},
            {"conv_channels": [2**20] * 7, "conv_full_width": 2**20},
            {"ffn": [2**20] * 512, "heads": [[0, 1, 2, 3]] * 512},
            {"relative_buckets": 2**20, "relative_distance": 2**20},
            {"pos_conv_kernel": 2**20},
            {"conv_kernels": [2**20] * 7},
        )
    ):
        paths.append(tmp_path / f"{number}.safetensors")
        header = {"kind": "encoder", "config": OURS | claims}
        save_file(tensors, paths[-1], {"skill": json.dumps(header)})
    command = [sys.executable, "-c", MEMORY, str(ours(tmp_path)), *map(str, paths)]
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=True)
    kilobytes, said = json.loads(done.stdout)
    assert len(said) == len(paths)
    assert kilobytes < 100_000


def test_a_fifo_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.safetensors")
    with pytest.raises(SkillError, match="neither a file nor a folder"):
        load_encoder(tmp_path / "a.safetensors")
