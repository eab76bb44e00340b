"""ONNX Runtime computes what torch computes, at any batch size and length."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.encoders import error, gated, irregular, pair
from torch import Tensor

from skill.cli import main
from skill.distillation import gates
from skill.distillation.pruning import prune
from skill.encoder import SpeechEncoder, checkpoint
from skill.encoder.formats import onnx as graph
from skill.encoder.formats import onnx_runtime
from skill.utils.errors import SkillError

ENCODERS: dict[str, Callable[[], SpeechEncoder]] = {
    **{
        f"{family} {size}": lambda family=family, size=size: pair(family, size == "large")[1]
        for family in ("wavlm", "hubert", "wav2vec2")
        for size in ("base", "large")
    },
    "wavlm irregular": lambda: irregular("wavlm"),
    "hubert irregular, normalised": lambda: irregular("hubert", normalize=True),
    "wavlm pruned": lambda: prune(gated("wavlm", gates.UNITS)),
    "filter bank pruned": lambda: prune(gated("wavlm", gates.UNITS, filters=True)),
    "hubert pruned": lambda: prune(gated("hubert", gates.UNITS)),
    "wav2vec2 pruned, large": lambda: prune(gated("wav2vec2", ("head", "ffn"), large=True)),
}
# 400 samples are one frame of most; 40,000 are 124, beyond the irregular WavLM's longest distance.
BATCHES = [[400], [16000], [9000, 7000], [40000, 400, 12345]]


def shortest(encoder: SpeechEncoder) -> int:
    """Samples of one frame."""
    return next(n for n in range(1, 2000) if encoder.frames(n) == 1)


def batch(lengths: list[int]) -> tuple[Tensor, Tensor]:
    rows = [torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in lengths]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor(lengths)


def loaded(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def distance(encoder: SpeechEncoder, outputs: list[np.ndarray], lengths: list[int]) -> float:
    """All states of a padded batch and their counts, against torch's of each utterance alone."""
    *states, frames = outputs
    waveforms, _ = batch(lengths)
    worst = 0.0
    assert frames.tolist() == [encoder.frames(n) for n in lengths]
    for row, length in enumerate(lengths):
        expected, _ = encoder(waveforms[row : row + 1, :length])
        assert len(states) == len(expected) == encoder.config.num_blocks + 1
        for own, want in zip(states, expected, strict=True):
            assert own.shape == (len(lengths), max(frames), encoder.config.width)
            worst = max(worst, error(torch.from_numpy(own[row, : frames[row]]), want[0]))
    return worst


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_every_state_equals_torch(name: str) -> None:
    encoder = ENCODERS[name]()
    model = graph.build(encoder)
    onnx.checker.check_model(model, full_check=True)
    session = loaded(model)
    for lengths in BATCHES:
        lengths = [max(n, shortest(encoder)) for n in lengths]
        waveforms, counts = batch(lengths)
        outputs = session.run(None, {"waveforms": waveforms.numpy(), "lengths": counts.numpy()})
        assert distance(encoder, outputs, lengths) < 1e-5


def test_the_last_state_alone_and_the_same_bytes_twice() -> None:
    encoder = irregular()
    model, whole = graph.build(encoder, "last"), graph.build(encoder)
    assert [output.name for output in model.graph.output] == ["state_3", "frames"]
    assert [o.name for o in whole.graph.output] == [*(f"state_{n}" for n in range(4)), "frames"]
    assert graph.build(encoder, "last").SerializeToString() == model.SerializeToString()
    waveforms, counts = batch([9000, 7000])
    inputs = {"waveforms": waveforms.numpy(), "lengths": counts.numpy()}
    np.testing.assert_array_equal(
        loaded(model).run(["state_3"], inputs)[0], loaded(whole).run(["state_3"], inputs)[0]
    )


def test_an_encoder_with_gates_is_refused() -> None:
    with pytest.raises(SkillError, match="prune it first"):
        graph.build(gated("hubert", ("ffn",)))


@pytest.mark.parametrize("family", ["wavlm", "hubert"])
@torch.no_grad()
def test_int8_is_smaller_and_near(tmp_path: Path, family: str) -> None:
    encoder = SpeechEncoder(pair(family, large=False, heads=8)[1].config).eval()
    differences = onnx_runtime.write(encoder, tmp_path)
    assert differences["model.onnx"] < 1e-5 < differences["model-int8.onnx"] < 0.1
    nodes = onnx.load(tmp_path / "model-int8.onnx").graph.node
    constants = {t.name for t in onnx.load(tmp_path / "model.onnx").graph.initializer}
    left = [n.name for n in nodes if n.op_type == "MatMul" and n.input[1] in constants]
    assert [name.split("/")[0] for name in left] == ["feature_extractor.conv_layers.0"]
    # All weights but those of the first convolution are there as integers.
    types = onnx.TensorProto.INT8, onnx.TensorProto.UINT8
    sizes = {
        t.name: int(np.prod(t.dims))
        for t in onnx.load(tmp_path / "model-int8.onnx").graph.initializer
        if t.data_type in types
    }
    matrices = sum(p.numel() for p in encoder.parameters() if p.dim() > 1)
    assert sum(sizes.values()) > 0.9 * matrices
    small, whole = (tmp_path / n for n in ("model-int8.onnx", "model.onnx"))
    assert small.stat().st_size < 0.6 * whole.stat().st_size
    # The integers are really used at other lengths, too.
    lengths = [30000, 5000, 400]
    waveforms, counts = batch(lengths)
    outputs = onnx_runtime.session(small, threads=1).run(
        None, {"waveforms": waveforms.numpy(), "lengths": counts.numpy()}
    )
    assert 1e-5 < distance(encoder, outputs, lengths) < 0.1


@pytest.mark.parametrize("file", ["model.onnx", "model-int8.onnx"])
def test_inputs_that_mean_nothing_are_refused(tmp_path: Path, file: str) -> None:
    encoder = pair("hubert", large=False)[1]
    onnx_runtime.write(encoder, tmp_path, "last")
    session = onnx_runtime.session(tmp_path / file, threads=1)

    def run(waveforms: np.ndarray, *lengths: int) -> list[np.ndarray]:
        counts = np.array(lengths, np.int64)
        return session.run(None, {"waveforms": waveforms.astype(np.float32), "lengths": counts})

    waves = np.random.default_rng(0).normal(size=(2, 5000))
    assert run(waves, 5000, 400)[1].tolist() == [15, 1]
    for lengths in ((5000, 399), (0, 5000), (-5, 5000)):
        with pytest.raises(Exception, match="lengths_below_400_samples"):
            run(waves, *lengths)
    with pytest.raises(Exception, match="lengths_above_those_of_the_waveforms"):
        run(waves, 5001, 400)
    with pytest.raises(Exception, match="lengths_below_400_samples"):
        run(waves[:, :399], 399, 399)
    with pytest.raises(Exception, match="lengths_of_another_number_of_waveforms"):
        run(waves, 5000)
    for value in (np.nan, np.inf, -np.inf):
        waves[1, 77] = value
        with pytest.raises(Exception, match="waveforms_that_are_not_finite"):
            run(waves, 5000, 400)


def test_a_file_that_computes_something_else_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = pair("hubert", large=False, seed=5)[1]
    monkeypatch.setattr(onnx_runtime, "build", lambda encoder, states: graph.build(other))
    with pytest.raises(SkillError, match=r"model\.onnx: ONNX Runtime's states differ from torch's"):
        onnx_runtime.write(pair("hubert", large=False)[1], tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_verb(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = irregular()
    checkpoint.save_encoder(encoder, tmp_path / "small.safetensors")
    command = ["export", str(tmp_path / "small.safetensors"), str(tmp_path / "a folder"), "--onnx"]
    assert main([*command, "--states", "last"]) == 0
    written = capfd.readouterr()
    assert "model.onnx: differs from torch by" in written.out and not written.err
    assert {p.name for p in (tmp_path / "a folder").iterdir()} == {"model.onnx", "model-int8.onnx"}
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "skill.encoder.formats.onnx_runtime")
    monkeypatch.delattr("skill.encoder.formats.onnx_runtime")
    assert main(command) == 1
    assert "onnxruntime is missing: pip install -e '.[onnx]'" in capfd.readouterr().err
