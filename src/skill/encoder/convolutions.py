"""From samples to projected frames, and the convolution that tells the blocks about positions.

Axes: B utterances, C channels, T frames (20 ms after the last layer), D width.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import EncoderConfig
from .float32 import Conv1d, LayerNorm, Linear, conv1d, widened
from .gating import GateSample


class ConvLayer(nn.Module):
    """One strided convolution: convolution, its norm if it has one, GELU; gate on the channels."""

    gate: nn.Module | None

    def __init__(self, config: EncoderConfig, index: int) -> None:
        super().__init__()
        inputs = config.conv_channels[index - 1] if index else 1
        outputs = config.conv_channels[index]
        kernel, stride = config.conv_kernels[index], config.conv_strides[index]
        self.conv = Conv1d(inputs, outputs, kernel, stride, bias=config.conv_bias)
        self.norm = config.conv_norm if config.conv_norm == "layer" or index == 0 else None
        if self.norm == "layer":
            self.layer_norm: nn.Module = LayerNorm(outputs)
        elif self.norm == "group":
            self.layer_norm = nn.GroupNorm(outputs, outputs)
        self.gate = None

    def forward(
        self, x: Tensor, lengths: Tensor | None, input_gates: GateSample
    ) -> tuple[Tensor, GateSample]:
        """[B, C, T] to [B, C', T'], and which channels these are.

        Args:
            lengths: [B] in output frames, asks for exact group norms.
            input_gates: which channels x has; their gates are still to be applied.
        """
        gates = GateSample.draw(self.gate, 8)
        x = self._convolve(x, input_gates, gates)
        if self.norm == "layer":
            x = self.layer_norm(x.transpose(1, 2)).transpose(1, 2)
        elif self.norm == "group":
            norm = self.layer_norm
            assert isinstance(norm, nn.GroupNorm)
            weight, shift = (widened(gates.select(p)) for p in (norm.weight, norm.bias))
            if lengths is None:
                x = F.group_norm(x, len(weight), weight, shift, norm.eps)
            else:
                x = _exact_group_norm(x, lengths, weight, shift, norm.eps)
        return F.gelu(x), gates

    def _convolve(self, x: Tensor, input_gates: GateSample, gates: GateSample) -> Tensor:
        conv = self.conv
        if input_gates.values is None and gates.values is None:
            return conv(x)
        bias = None if conv.bias is None else gates.select(conv.bias)
        weight = input_gates.conv_weight(gates.select(conv.weight))
        return conv1d(x, weight, bias, conv.stride)


class FeatureExtractor(nn.Module):
    """The stack of convolutions: 16 kHz samples to one vector per 20 ms."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        count = len(config.conv_channels)
        self.conv_layers = nn.ModuleList(ConvLayer(config, index) for index in range(count))


class FeatureProjection(nn.Module):
    """Layer norm over channels and projection to the model's width.

    A gated model norms over all N channels, where a closed one counts as 0 and so becomes
    b_c - w_c mean / std. A pruned model (`conv_masked`) keeps that: it divides by N, multiplies the
    channels that are left by their masks (`scale`), and adds what the removed ones contribute
    through the projection P: the constant sum P_c b_c (part of the bias), and per frame
    -mean / std times the vector `removed` = sum P_c w_c.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        channels = config.conv_channels[-1]
        self.full_width, self.eps = config.conv_full_width, config.layer_norm_eps
        self.layer_norm = (
            LayerNorm(channels, eps=self.eps) if config.projection_norm else nn.Identity()
        )
        self.projection = Linear(channels, config.width)
        self.dropout = nn.Dropout(config.projection_dropout)
        self.masked = config.conv_masked
        if self.masked:
            self.scale = nn.Parameter(torch.ones(channels))
            self.removed = nn.Parameter(torch.zeros(config.width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] to [B, T, D]."""
        if not self.masked:
            return self.dropout(self.projection(self.layer_norm(x)))
        x = x * self.scale
        if isinstance(self.layer_norm, nn.Identity):
            return self.dropout(self.projection(x))
        gone = self.full_width - x.shape[-1]
        mean = x.sum(-1, keepdim=True) / self.full_width
        squares = (x - mean).square().sum(-1, keepdim=True) + gone * mean.square()
        rstd = (squares / self.full_width + self.eps).rsqrt()
        normed = (x - mean) * rstd * self.layer_norm.weight + self.layer_norm.bias
        return self.dropout(self.projection(normed) - mean * rstd * self.removed)


class PositionalConv(nn.Module):
    """Relative positions by a grouped convolution with a normalised weight."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width, kernel = config.width, config.pos_conv_kernel
        conv = Conv1d(width, width, kernel, padding=kernel // 2, groups=config.pos_conv_groups)
        nn.init.normal_(conv.weight, std=2 * math.sqrt(1 / (kernel * width)))
        conv.bias.data.zero_()  # type: ignore[union-attr]
        self.conv = nn.utils.parametrizations.weight_norm(conv, dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        return F.gelu(self.conv(x.transpose(1, 2))[..., : x.shape[1]]).transpose(1, 2)


def inside(lengths: Tensor, size: int) -> Tensor:
    """[B, size], True where a position lies inside its utterance."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def _exact_group_norm(
    x: Tensor, lengths: Tensor, weight: Tensor, shift: Tensor, eps: float
) -> Tensor:
    """Every channel of x [B, C, T] normalised within its utterance, times weight plus shift [C]."""
    counts = lengths.tolist()

    def each(of: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return torch.stack([of(row[:, :n]) for row, n in zip(x, counts, strict=True)])[..., None]

    x = x - each(lambda row: row.mean(1), x)
    variance = each(lambda row: torch.linalg.vector_norm(row, dim=1).square() / row.shape[1], x)
    return torch.addcmul(shift[:, None], x, weight[:, None] * (variance + eps).rsqrt())
