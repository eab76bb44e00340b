"""The whole encoder: waveforms to hidden states.

Axes: B utterances, S samples (16 kHz), T frames (20 ms), D width, H heads, L states.
"""

import math
from collections.abc import Iterator
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Block
from .config import EncoderConfig
from .convolutions import (
    ConvLayer,
    FeatureExtractor,
    FeatureProjection,
    PositionalConv,
    inside,
)
from .float32 import LayerNorm, autocast_to
from .gating import GateSample


class Transformer(nn.Module):
    """Positional convolution, layer norm and the blocks."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.pos_conv_embed = PositionalConv(config)
        self.layer_norm = LayerNorm(config.width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(Block(config, index) for index in range(config.num_blocks))


class SpeechEncoder(nn.Module):
    """Waveforms to hidden states. State 0 is the input of the first block, state N the output.

    With pre-norm blocks the last state has passed the final layer norm, as in `transformers`.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.feature_extractor = FeatureExtractor(config)
        self.feature_projection = FeatureProjection(config)
        self.encoder = Transformer(config)
        self.exact_padding = False
        self._initialize()

    def _initialize(self) -> None:
        """He's initialisation for the convolutions, a small normal one for the rest.

        torch's default shrinks the signal in every convolution, until the projection's layer norm
        sees little more than its epsilon, and masked prediction then learns nothing. The deviation
        is HuBERT's 0.02 at width 768, and grows as the width shrinks.
        """
        deviation = 0.02 * math.sqrt(768 / self.config.width)
        for layer in self.convolutions:
            nn.init.kaiming_normal_(layer.conv.weight)
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.weight.numel():
                nn.init.normal_(module.weight, std=deviation)
                nn.init.zeros_(module.bias)

    @property
    def blocks(self) -> list[Block]:
        """The N transformer blocks."""
        return cast(list[Block], list(self.encoder.layers))

    @property
    def convolutions(self) -> list[ConvLayer]:
        """The strided convolutions."""
        return cast(list[ConvLayer], list(self.feature_extractor.conv_layers))

    def num_parameters(self) -> int:
        """How many numbers the model holds."""
        return sum(parameter.numel() for parameter in self.parameters())

    def frames(self, samples: Any, layers: int | None = None) -> Any:
        """Frames that the convolutions (the first `layers`) make of `samples`: int or [B]."""
        kernels, strides = self.config.conv_kernels[:layers], self.config.conv_strides[:layers]
        for kernel, stride in zip(kernels, strides, strict=True):
            samples = (samples - kernel) // stride + 1
        return samples

    def forward(
        self, waveforms: Tensor, lengths: Tensor | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """All states of a batch.

        Args:
            waveforms: [B, S], 16 kHz, padded with zeros at the end.
            lengths: [B] in samples; None where no waveform is padded.

        Returns:
            L = N + 1 states [B, T, D], and the number of frames of each utterance [B].

        Raises:
            ValueError: no batch, a waveform that is shorter than one frame, or `lengths` says more
                than there is.
        """
        states = [state for name, state in self.iterate(waveforms, lengths) if name != "projection"]
        if lengths is None:
            frames = torch.full((len(waveforms),), states[0].shape[1], device=waveforms.device)
        else:
            frames = self.frames(lengths)
        return states, frames

    def iterate(
        self, waveforms: Tensor, lengths: Tensor | None = None
    ) -> Iterator[tuple[int | Literal["projection"], Tensor]]:
        """Yield ("projection", x), (0, state 0), … (N, state N), each [B, T, D], keeping none.

        "projection" is the feature projection's output, which DPHuBERT calls layer 0.
        """
        projected, frames = self.project(waveforms, lengths)
        yield "projection", projected
        yield from self.transform(projected, frames)

    def project(
        self, waveforms: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """[B, S] to the feature projection's output [B, T, D] and the frame lengths [B]."""
        if waveforms.ndim != 2 or not waveforms.is_floating_point():
            shape = list(waveforms.shape)
            raise ValueError(
                f"waveforms are {waveforms.dtype} of the shape {shape}, not floats [B, S]"
            )
        shortest = waveforms.shape[1] if lengths is None else int(lengths.min())
        if self.frames(shortest) < 1:
            raise ValueError(f"a waveform of {shortest} samples is shorter than one frame")
        if lengths is not None and lengths.shape != waveforms.shape[:1]:
            shape = list(lengths.shape)
            raise ValueError(f"lengths have the shape {shape} for {len(waveforms)} waveforms")
        if lengths is not None and (longest := int(lengths.max())) > waveforms.shape[1]:
            raise ValueError(f"lengths say {longest} samples; there are {waveforms.shape[1]}")
        dtype = self.convolutions[0].conv.weight.dtype
        waveforms = waveforms.to(torch.promote_types(dtype, torch.float32))
        if self.config.normalize_waveform:
            waveforms = _normalized(waveforms, lengths)
        x, gates = waveforms[:, None], GateSample()
        for index, layer in enumerate(self.convolutions):
            exact = self.exact_padding and lengths is not None
            ends = self.frames(lengths, index + 1) if exact else None
            x, gates = layer(x, ends, gates)
        frames = None if lengths is None else self.frames(lengths)
        return self.feature_projection(gates.scatter(x).transpose(1, 2)), frames

    def transform(self, x: Tensor, frames: Tensor | None = None) -> Iterator[tuple[int, Tensor]]:
        """Yield (0, state 0), … (N, state N) of projected features x [B, T, D]."""
        valid = None if frames is None else inside(frames, x.shape[1])
        if valid is not None:
            x = x.masked_fill(~valid[..., None], 0.0)
        x = x + self.encoder.pos_conv_embed(x)
        if not self.config.pre_norm:
            x = self.encoder.layer_norm(x)
        x = self.encoder.dropout(x)
        dtype = self.encoder.layer_norm.weight.dtype
        distances = self._position_values(x.shape[1]) if self.config.family == "wavlm" else None
        for index, block in enumerate(self.blocks):
            yield index, x.to(dtype)
            with autocast_to(dtype, x):
                x = block(x, valid, distances)
        if self.config.pre_norm:
            x = self.encoder.layer_norm(x)
        yield len(self.blocks), x.to(dtype)

    def _position_values(self, frames: int) -> Tensor:
        """[H, T, T], WavLM's learned value for the distance of every pair of frames."""
        table = self.blocks[0].attention.rel_attn_embed.weight
        position = torch.arange(frames, device=table.device)
        distance = position - position[:, None]
        half = self.config.relative_buckets // 2
        exact = half // 2
        far = torch.log(distance.abs().clamp(min=1).float() / exact)
        far = far / math.log(self.config.relative_distance / exact) * (half - exact)
        far = (exact + far).long().clamp(max=half - 1)
        bucket = torch.where(distance.abs() < exact, distance.abs(), far) + (distance > 0) * half
        return table.t()[:, bucket]


def _normalized(waveforms: Tensor, lengths: Tensor | None) -> Tensor:
    """Zero mean and unit variance per utterance; padding stays zero."""
    if lengths is None:
        return F.layer_norm(waveforms, waveforms.shape[-1:], eps=1e-7)
    valid = inside(lengths, waveforms.shape[1]).to(waveforms.dtype)
    mean = (waveforms * valid).sum(1, keepdim=True) / lengths[:, None]
    centred = (waveforms - mean) * valid
    variance = centred.square().sum(1, keepdim=True) / lengths[:, None]
    return centred * (variance + 1e-7).rsqrt()
