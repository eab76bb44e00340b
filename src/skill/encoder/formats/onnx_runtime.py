"""ONNX files, float32 and dynamic int8, compared with torch before they get their names.

In the int8 file the weights of all products are 7-bit integers, one scale per output, and their
inputs are rounded to 8 bits at run time, one scale per tensor. Seven bits, because processors
without VNNI add pairs of products in 16 bits, which eight would overflow. The first convolution,
which sees the raw waveform, stays in float32; the positional convolution is stored in 8 bits and
unpacked when the file is loaded.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper

from skill.encoder import SpeechEncoder
from skill.encoder.formats.onnx import build
from skill.utils.errors import SkillError
from skill.utils.files import replacing

FLOAT, INT8 = "model.onnx", "model-int8.onnx"
# Relative differences above these mean that the file is wrong, not that it is rounded.
_LIMITS = {FLOAT: 1e-4, INT8: 0.5}


def write(
    encoder: SpeechEncoder, folder: Path, states: Literal["all", "last"] = "all"
) -> dict[str, float]:
    """Write `model.onnx` and `model-int8.onnx` for the encoder, see `graph.build`.

    Returns:
        For each file, how far its states are from torch's, as a share of their norm, the worst
        state of a padded batch of noise.

    Raises:
        SkillError: the encoder has gates, or ONNX Runtime computes something else than torch.
    """
    model = build(encoder, states)
    differences = {}
    for file, variant in ((FLOAT, model), (INT8, None)):
        with replacing(folder / file) as temporary:
            onnx.save(quantized(model, temporary) if variant is None else variant, temporary)
            differences[file] = difference(encoder, session(temporary))
            if not differences[file] <= _LIMITS[file]:
                raise SkillError(
                    f"{folder / file}: ONNX Runtime's states differ from torch's by "
                    f"{differences[file]:.2g} of their norm; the file was not written"
                )
    return differences


def session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """A model on the CPU; 0 threads: as many as ONNX Runtime likes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def quantized(model: onnx.ModelProto, scratch: Path) -> onnx.ModelProto:
    """The dynamic int8 form of a model of `graph.build`; the file `scratch` is overwritten."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    first = [
        n.name for n in model.graph.node if n.name.startswith("feature_extractor.conv_layers.0/")
    ]
    with _quiet():  # its advice to optimise beforehand is for graphs of exporters
        quantize_dynamic(
            model,
            scratch,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=first,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
    small = onnx.load(scratch)
    _pack_convolutions(small.graph)
    return small


def _pack_convolutions(graph: onnx.GraphProto) -> None:
    """Weights of convolutions as int8 with a scale per output, multiplied out by constant nodes."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Conv"]:
        name = node.input[1]
        weight = numpy_helper.to_array(constants[name])
        scale = np.abs(weight).max(axis=(1, 2), keepdims=True).clip(1e-12) / 127
        packed = np.rint(weight / scale).astype(np.int8)
        graph.initializer.remove(constants[name])
        graph.initializer.append(numpy_helper.from_array(packed, f"{name}_packed"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        cast = helper.make_node("Cast", [f"{name}_packed"], [f"{name}_cast"], to=1)
        unpacked = helper.make_node("Mul", [f"{name}_cast", f"{name}_scale"], [name])
        for part in (unpacked, cast):
            graph.node.insert(0, part)


@torch.no_grad()
def difference(encoder: SpeechEncoder, runtime: onnxruntime.InferenceSession) -> float:
    """‖a − b‖ / ‖b‖ of the worst state over two utterances of noise, 1 s and 0.6 s.

    a comes from ONNX Runtime and the padded batch, b from torch and each utterance alone.
    """
    waves = [
        0.1 * torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (16000, 9600)
    ]
    padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    lengths = np.array([len(wave) for wave in waves])
    names = [output.name for output in runtime.get_outputs() if output.name != "frames"]
    outputs = runtime.run(names, {"waveforms": padded.numpy(), "lengths": lengths})
    worst = 0.0
    for row, wave in enumerate(waves):
        states, _ = encoder(wave[None])
        for name, output in zip(names, outputs, strict=True):
            want = states[int(name.removeprefix("state_"))][0].numpy()
            error = np.linalg.norm(output[row, : len(want)] - want) / np.linalg.norm(want)
            worst = float(np.maximum(worst, error))  # which is NaN if one is
    return worst


@contextmanager
def _quiet() -> Iterator[Any]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
