"""The encoder as an ONNX graph, written node by node, with any batch size and length.

Axes: B utterances, S samples (16 kHz), T frames, C channels, D width, H heads, h heads left.

Three things are computed in another form than in `skill.encoder`, with the same result. A strided
convolution is a product of its windows [B, T, k C] with a matrix, so that int8 covers it, too.
WavLM's position values come from a table over clipped distances instead of a logarithm, whose
rounding would put some distances into other buckets in other runtimes. Its position gate sums four
outputs of a linear map per head; the sum is taken over the map's rows beforehand.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from skill.encoder import SpeechEncoder
from skill.encoder.blocks import Block, SelfAttention
from skill.encoder.convolutions import ConvLayer
from skill.utils.errors import SkillError
from skill.utils.files import canonical_json

# The oldest versions that have Gelu, so that runtimes from 2024 on can read the files.
_OPSET, _IR = 20, 9
_END = np.iinfo(np.int64).max
Value = str | Tensor | Sequence[int] | int | float


class _Graph:
    """Nodes and constants in the order in which they are added; `scope` prefixes their names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.scope = ""

    def __call__(self, op: str, *inputs: Value, **attributes: Any) -> str:
        """Add a node with one output; returns the output's name."""
        return self.several(op, 1, *inputs, **attributes)[0]

    def several(self, op: str, count: int, *inputs: Value, **attributes: Any) -> list[str]:
        """Add a node with `count` outputs."""
        name = f"{self.scope}/{op}_{len(self.nodes)}"
        names = [x if isinstance(x, str) else self._constant(name, x) for x in inputs]
        outputs = [name] if count == 1 else [f"{name}:{number}" for number in range(count)]
        self.nodes.append(helper.make_node(op, names, outputs, name=name, **attributes))
        return outputs

    def _constant(self, node: str, value: Tensor | Sequence[int] | float) -> str:
        if isinstance(value, Tensor):
            array = value.detach().cpu().contiguous().numpy()
        else:
            array = np.array(value, dtype=np.float32 if isinstance(value, float) else np.int64)
        name = f"{node}.{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def linear(self, x: str, weight: Tensor, bias: Tensor | None) -> str:
        """x [..., in] by a weight [out, in] as torch has it."""
        product = self("MatMul", x, weight.t())
        return product if bias is None else self("Add", product, bias)

    def layer_norm(self, x: str, norm: nn.LayerNorm) -> str:
        return self(
            "LayerNormalization", x, norm.weight, norm.bias, axis=-1, epsilon=float(norm.eps)
        )

    def size(self, x: str, axis: int) -> str:
        """The length of an axis, a scalar."""
        return self("Squeeze", self("Shape", x, start=axis, end=axis + 1), [0])

    def valid(self, lengths: str, x: str) -> str:
        """[B, n], True where a position along axis 1 of x lies inside its utterance."""
        positions = self("Range", 0, self.size(x, 1), 1)
        return self("Less", positions, self("Unsqueeze", lengths, [1]))


@torch.no_grad()
def build(encoder: SpeechEncoder, states: Literal["all", "last"] = "all") -> onnx.ModelProto:
    """A float32 model that maps `waveforms` [B, S] and `lengths` [B] to states.

    Outputs are `state_0` … `state_N`, each [B, T, D], or the last of them alone, and `frames` [B],
    how many of the T frames belong to each utterance. Padding is exact (`skill.encoder`): the
    frames of an utterance are what they are without its neighbours. Weight norm is folded.
    Inputs that mean nothing make the runtime fail (`_checked`).

    Raises:
        SkillError: the encoder has gates; `skill.distillation.pruning.prune` takes them in.
    """
    if any("log_alpha" in name for name, _ in encoder.named_parameters()):
        raise SkillError("an encoder with gates has no ONNX form: prune it first")
    g, config = _Graph(), encoder.config
    x: str = "waveforms"
    lengths = frames = _checked(g, encoder)
    g.scope = "feature_extractor"
    if config.normalize_waveform:
        x = _normalized(g, x, lengths)
    x = g("Unsqueeze", x, [2])
    for number, layer in enumerate(encoder.convolutions):
        g.scope = f"feature_extractor.conv_layers.{number}"
        kernel, stride = config.conv_kernels[number], config.conv_strides[number]
        frames = g("Add", g("Div", g("Sub", frames, kernel), stride), 1)
        x = _convolution(g, x, layer, kernel, stride, frames)
    g.scope = "feature_projection"
    x = _projection(g, x, encoder)
    g.scope = "encoder"
    valid = g.valid(frames, x)
    x = g("Where", g("Unsqueeze", valid, [2]), x, 0.0)
    x = g("Add", x, _positional(g, x, encoder))
    if not config.pre_norm:
        x = g.layer_norm(x, encoder.encoder.layer_norm)
    mask = g("Unsqueeze", g("Where", valid, 0.0, -float("inf")), [1, 2])
    distances = _distances(g, x, encoder) if config.family == "wavlm" else None
    outputs = [x]
    for number, block in enumerate(encoder.blocks):
        g.scope = f"encoder.layers.{number}"
        x = _block(g, x, block, mask, distances)
        outputs.append(x)
    if config.pre_norm:
        g.scope = "encoder"
        outputs[-1] = g.layer_norm(x, encoder.encoder.layer_norm)
    return _model(g, encoder, outputs, frames, states)


def _model(
    g: _Graph, encoder: SpeechEncoder, outputs: list[str], frames: str, states: str
) -> onnx.ModelProto:
    numbers = range(len(outputs)) if states == "all" else range(len(outputs) - 1, len(outputs))
    names = {outputs[number]: f"state_{number}" for number in numbers} | {frames: "frames"}
    for old, new in names.items():
        g.nodes.append(helper.make_node("Identity", [old], [new], name=new))
    width, real, integer = encoder.config.width, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    declare = helper.make_tensor_value_info
    shape: list[str | int | None] = ["utterances", "frames", width]
    graph = helper.make_graph(
        g.nodes,
        "skill",
        [
            declare("waveforms", real, ["utterances", "samples"]),
            declare("lengths", integer, ["utterances"]),
        ],
        [
            *(declare(f"state_{number}", real, shape) for number in numbers),
            declare("frames", integer, ["utterances"]),
        ],
        initializer=g.constants,
    )
    opset = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=_IR, producer_name="skill")
    facts = {"skill": canonical_json(encoder.config.to_dict()), "sampling_rate": "16000"}
    helper.set_model_props(model, facts)
    return model


def _checked(g: _Graph, encoder: SpeechEncoder) -> str:
    """`lengths` [B], if each is at least a frame and at most the waveforms, B of them and finite.

    ONNX has no assertion. Where a condition does not hold, a node whose name says so looks up an
    entry that its table has not, and the runtime fails with that name.
    """
    shortest = 1
    for kernel, stride in zip(
        reversed(encoder.config.conv_kernels), reversed(encoder.config.conv_strides), strict=True
    ):
        shortest = (shortest - 1) * stride + kernel
    least = g("ReduceMin", "lengths", keepdims=0)
    most = g("ReduceMax", "lengths", keepdims=0)
    products = g("ReduceSum", g("Mul", "waveforms", 0.0), keepdims=0)  # NaN if one is not finite
    lengths = "lengths"
    for fault, says in (
        (g("Less", least, shortest), f"lengths_below_{shortest}_samples"),
        (g("Less", g.size("waveforms", 1), most), "lengths_above_those_of_the_waveforms"),
        (
            g("Not", g("Equal", g.size("waveforms", 0), g.size("lengths", 0))),
            "lengths_of_another_number_of_waveforms",
        ),
        (g("IsNaN", products), "waveforms_that_are_not_finite"),
    ):
        g.scope = says
        zero = g("Gather", [0], g("Cast", fault, to=onnx.TensorProto.INT64))
        lengths = g("Add", lengths, zero)
    return lengths


def _normalized(g: _Graph, x: str, lengths: str) -> str:
    """Zero mean and unit variance per utterance [B, S]; padding stays zero."""
    valid = g("Cast", g.valid(lengths, x), to=onnx.TensorProto.FLOAT)
    length = g("Unsqueeze", g("Cast", lengths, to=onnx.TensorProto.FLOAT), [1])
    mean = g("Div", g("ReduceSum", g("Mul", x, valid), [1]), length)
    centred = g("Mul", g("Sub", x, mean), valid)
    variance = g("Div", g("ReduceSum", g("Mul", centred, centred), [1]), length)
    return g("Div", centred, g("Sqrt", g("Add", variance, 1e-7)))


def _convolution(g: _Graph, x: str, layer: ConvLayer, kernel: int, stride: int, frames: str) -> str:
    """[B, T, C] to [B, T', C'], of which `frames` [B] belong to each utterance."""
    # Window i begins at i * stride; its sample number `tap` lies `kernel - 1 - tap` before its end.
    taps = [
        g("Slice", x, [tap], [tap + 1 - kernel or _END], [1], [stride]) for tap in range(kernel)
    ]
    weight = layer.conv.weight
    x = g.linear(g("Concat", *taps, axis=2), weight.permute(0, 2, 1).flatten(1), layer.conv.bias)
    norm = getattr(layer, "layer_norm", None)
    if isinstance(norm, nn.LayerNorm):
        x = g.layer_norm(x, norm)
    elif isinstance(norm, nn.GroupNorm):
        x = _group_norm(g, x, norm, frames)
    return g("Gelu", x)


def _group_norm(g: _Graph, x: str, norm: nn.GroupNorm, frames: str) -> str:
    """[B, T, C], every channel by its mean and variance over the frames [B] of an utterance."""
    count = g("Cast", g("Unsqueeze", frames, [1]), to=onnx.TensorProto.FLOAT)
    shares = g("Div", g("Cast", g.valid(frames, x), to=onnx.TensorProto.FLOAT), count)
    shares = g("Unsqueeze", shares, [1])

    def over_time(values: str) -> str:
        return g("MatMul", shares, values)

    centred = g("Sub", x, over_time(x))
    deviation = g("Sqrt", g("Add", over_time(g("Mul", centred, centred)), float(norm.eps)))
    return g("Add", g("Mul", centred, g("Div", norm.weight, deviation)), norm.bias)


def _projection(g: _Graph, x: str, encoder: SpeechEncoder) -> str:
    """[B, T, C] to [B, T, D]; the formulas are those of `FeatureProjection`."""
    part = encoder.feature_projection
    norm, linear = part.layer_norm, part.projection
    if part.masked:
        x = g("Mul", x, part.scale)
    if not isinstance(norm, nn.LayerNorm):
        return g.linear(x, linear.weight, linear.bias)
    if not part.masked:
        return g.linear(g.layer_norm(x, norm), linear.weight, linear.bias)
    full, gone = part.full_width, part.full_width - len(part.scale)
    mean = g("Div", g("ReduceSum", x, [2]), float(full))
    centred = g("Sub", x, mean)
    squares = g("ReduceSum", g("Mul", centred, centred), [2])
    squares = g("Add", squares, g("Mul", g("Mul", mean, mean), float(gone)))
    deviation = g("Sqrt", g("Add", g("Div", squares, float(full)), float(part.eps)))
    normed = g("Add", g("Mul", g("Div", centred, deviation), norm.weight), norm.bias)
    left = g("Mul", g("Div", mean, deviation), part.removed)
    return g("Sub", g.linear(normed, linear.weight, linear.bias), left)


def _positional(g: _Graph, x: str, encoder: SpeechEncoder) -> str:
    conv = encoder.encoder.pos_conv_embed.conv
    assert isinstance(conv, nn.Conv1d) and conv.bias is not None
    kernel = conv.kernel_size[0]
    # torch pads both sides by kernel // 2 and drops what is too much at the end.
    pads = [kernel // 2, (kernel - 1) // 2]
    x = g("Transpose", x, perm=[0, 2, 1])
    x = g("Conv", x, conv.weight, conv.bias, group=conv.groups, pads=pads, kernel_shape=[kernel])
    return g("Transpose", g("Gelu", x), perm=[0, 2, 1])


def _distances(g: _Graph, x: str, encoder: SpeechEncoder) -> str:
    """[H, T, T], WavLM's value for the distance of every pair of frames."""
    limit = encoder.config.relative_distance  # beyond it, all distances share a bucket
    values = encoder._position_values(limit + 1)
    table = torch.cat([values[:, 1:, 0].flip(1), values[:, 0]], dim=1)
    position = g("Range", 0, g.size(x, 1), 1)
    distance = g("Sub", position, g("Unsqueeze", position, [1]))
    return g("Gather", table, g("Add", g("Clip", distance, -limit, limit), limit), axis=1)


def _block(g: _Graph, x: str, block: Block, mask: str, distances: str | None) -> str:
    """[B, T, D] to [B, T, D]."""
    if block.pre_norm:
        attended = _attention(g, g.layer_norm(x, block.layer_norm), block, mask, distances)
        x = g("Add", x, attended)
        return g("Add", x, _feed_forward(g, g.layer_norm(x, block.final_layer_norm), block))
    x = g.layer_norm(g("Add", x, _attention(g, x, block, mask, distances)), block.layer_norm)
    return g.layer_norm(g("Add", x, _feed_forward(g, x, block)), block.final_layer_norm)


def _attention(g: _Graph, x: str, block: Block, mask: str, distances: str | None) -> str | Tensor:
    """[B, T, D] to [B, T, D]; of a block without heads, the bias [D]."""
    part = block.attention
    heads, width = len(part.heads), part.head_width
    if not heads:
        return part.out_proj.bias
    inner, scale = heads * width, width**-0.5
    maps = (part.q_proj, part.k_proj, part.v_proj)
    weight = torch.cat([maps[0].weight * scale, maps[1].weight, maps[2].weight])
    bias = torch.cat([maps[0].bias * scale, maps[1].bias, maps[2].bias])
    joined = g.several("Split", 3, g.linear(x, weight, bias), [inner] * 3, axis=2)
    query, key, value = (g("Reshape", y, [0, 0, heads, width]) for y in joined)
    query, value = (g("Transpose", y, perm=[0, 2, 1, 3]) for y in (query, value))
    scores = g("MatMul", query, g("Transpose", key, perm=[0, 2, 3, 1]))
    if distances is not None:
        if heads < part.total_heads:
            distances = g("Gather", distances, list(part.heads), axis=0)
        scores = g("Add", scores, g("Mul", _position_gate(g, x, part), distances))
    weights = g("Softmax", g("Add", scores, mask), axis=-1)
    mixed = g("Transpose", g("MatMul", weights, value), perm=[0, 2, 1, 3])
    mixed = g("Reshape", mixed, [0, 0, inner])
    return g.linear(mixed, part.out_proj.weight, part.out_proj.bias)


def _position_gate(g: _Graph, x: str, part: SelfAttention) -> str:
    """[B, h, T, 1], the factor of each head's position values at each query frame."""
    heads, width, linear = len(part.heads), part.head_width, part.gru_rel_pos_linear
    rows = linear.weight.unflatten(0, (2, 4)).sum(1)  # reset and update, over a head's slice
    weight = rows.new_zeros(2, heads, part.total_heads, width)
    for number, head in enumerate(part.heads):
        weight[:, number, head] = rows
    bias = linear.bias.unflatten(0, (2, 4)).sum(1).repeat_interleave(heads)
    pair = g("Sigmoid", g.linear(x, weight.flatten(2).flatten(0, 1), bias))
    pair = g("Unsqueeze", g("Transpose", pair, perm=[0, 2, 1]), [3])
    reset, update = g.several("Split", 2, pair, [heads, heads], axis=1)
    inner = g("Sub", g("Mul", update, part.gru_rel_pos_const), 1.0)
    return g("Add", g("Mul", reset, inner), 2.0)


def _feed_forward(g: _Graph, x: str, block: Block) -> str | Tensor:
    """[B, T, D] to [B, T, D]; of a block without units, the bias [D]."""
    first, last = block.feed_forward.intermediate_dense, block.feed_forward.output_dense
    if not last.in_features:
        return last.bias
    return g.linear(g("Gelu", g.linear(x, first.weight, first.bias)), last.weight, last.bias)
