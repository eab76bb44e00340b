"""What an upstream costs: parameters, multiply-accumulates, and time beside the audio's.

Multiply-accumulates are counted from the shapes that linear layers, convolutions and attention
really see, on utterances of the lengths that are given; pruned widths count as they are.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skill.encoder import SpeechEncoder
from skill.encoder.blocks import SelfAttention
from skill.superb.upstream import Encoder, Upstream, load_upstream
from skill.utils.files import write_json

# samples of LibriSpeech's test-clean utterances number 82 i + 1, in the order of their lengths: the
# 32 that SUPERB's leaderboard counts, a quarter each short, medium, long and longer
LENGTHS = (
    *(20560, 34560, 38480, 42560, 45600, 48720, 52000, 55120),
    *(59120, 62720, 66400, 71200, 75200, 78640, 82800, 87520),
    *(92720, 98560, 104400, 111120, 118480, 125040, 132720, 142640),
    *(154000, 166720, 180880, 197920, 217920, 239280, 268160, 326000),
)
TIMED_SECONDS = 10.0
REPEATS = 5


def multiply_accumulates(encoder: SpeechEncoder, samples: int) -> int:
    """Of one utterance [S], all layers, without activations, norms and biases."""
    counted: list[int] = []

    def convolution(layer: nn.Conv1d, _: Any, output: Tensor) -> None:
        per_output = layer.in_channels // layer.groups * layer.kernel_size[0]
        counted.append(per_output * output.numel())

    def linear(layer: nn.Linear, _: Any, output: Tensor) -> None:
        counted.append(layer.in_features * output.numel())

    def attention(layer: SelfAttention, inputs: tuple[Tensor, ...], _: Any) -> None:
        frames = inputs[0].shape[1]
        counted.append(2 * frames * frames * layer.q_proj.out_features)

    hooks: list[tuple[type, Callable[..., None]]] = [
        (nn.Conv1d, convolution), (nn.Linear, linear), (SelfAttention, attention)
    ]  # fmt: skip
    handles = [
        module.register_forward_hook(hook)
        for module in encoder.modules()
        for kind, hook in hooks
        if isinstance(module, kind)
    ]
    device = next(encoder.parameters()).device
    try:
        with torch.no_grad():
            encoder(torch.zeros(1, samples, device=device))
    finally:
        for handle in handles:
            handle.remove()
    return sum(counted)


def real_time_factor(upstream: Upstream, seconds: float = TIMED_SECONDS) -> float:
    """Median seconds of computation per second of audio, one utterance at a time."""
    waveform = np.random.default_rng(0).standard_normal(round(16000 * seconds)).astype(np.float32)
    upstream([waveform])
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        upstream([waveform])
        times.append(time.perf_counter() - began)
    return statistics.median(times) / seconds


def run(
    upstream: str, encoder: Path | None, output: Path, lengths: Sequence[int] = LENGTHS
) -> None:
    """Write parameters, MACs (sum over utterances of `lengths` samples) and real-time factor."""
    model = load_upstream(encoder)
    result: dict[str, Any] = {"upstream": upstream, "parameters": 0, "macs": 0}
    if isinstance(model, Encoder):
        result["parameters"] = model.encoder.num_parameters()
        result["macs"] = sum(multiply_accumulates(model.encoder, n) for n in lengths)
    result["macs_seconds"] = sum(lengths) / 16000
    result["real_time_factor"] = real_time_factor(model)
    result["threads"] = torch.get_num_threads()
    result["device"] = model.device.type
    write_json(output, result)
