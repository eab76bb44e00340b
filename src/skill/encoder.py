"""The encoder of the wav2vec 2.0 family (wav2vec 2.0, HuBERT, WavLM), a width for every layer.

Axes: B utterances, S samples (16 kHz), C channels, T frames (20 ms), D width, H heads, L states.

A waveform passes seven strided convolutions, a projection to the model's width, a positional
convolution and N transformer blocks. Teacher and pruned student are the same class: convolutions,
attention heads and feed-forward units may have any number left in every layer. Parameter names and
outputs are those of `transformers`. An exported model carries this file and the two that it imports
(`skill.export.CARRIED`).

Padding. `transformers` (and the training of the Base models) lets the group norm of the first
convolution see the padding of a batch, so an utterance's states depend on its neighbours. That is
the default here, too. With `encoder.exact_padding = True` the norm's statistics are those of each
utterance alone: a padded batch then equals single utterances, as SUPERB's batch size 1 has it.
"""

import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skill.draws import Draw
from skill.linear import Linear

Family = Literal["wav2vec2", "hubert", "wavlm"]


@dataclass(frozen=True)
class EncoderConfig:
    """The architecture, explicit in every layer.

    `heads[i]` lists the heads that block i still has, by their number in the unpruned model:
    WavLM's position bias belongs to numbered heads. `conv_full_width` is the number of channels
    that the projection's layer norm divides by, whatever number is left. `conv_masked` says that
    the projection carries what pruned channels leave behind (see `FeatureProjection`).
    """

    family: Family
    width: int
    conv_channels: tuple[int, ...]
    conv_full_width: int
    heads: tuple[tuple[int, ...], ...]
    total_heads: int
    ffn: tuple[int, ...]
    conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    conv_norm: Literal["group", "layer"] = "group"
    conv_masked: bool = False
    projection_norm: bool = True
    pos_conv_kernel: int = 128
    pos_conv_groups: int = 16
    pre_norm: bool = False
    relative_buckets: int = 0
    relative_distance: int = 0
    normalize_waveform: bool = False
    layer_norm_eps: float = 1e-5
    projection_dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    hidden_dropout: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                nested = tuple(tuple(v) if isinstance(v, list) else v for v in value)
                object.__setattr__(self, field.name, nested)
        if not len(self.conv_channels) == len(self.conv_kernels) == len(self.conv_strides):
            raise ValueError("conv_channels, conv_kernels and conv_strides differ in length")
        if len(self.heads) != len(self.ffn) or not self.heads:
            raise ValueError("heads and ffn need one entry per block, and at least one block")
        if self.width % self.total_heads:
            raise ValueError(f"width {self.width} is no multiple of {self.total_heads} heads")
        if self.relative_buckets and self.family != "wavlm":
            raise ValueError("relative_buckets belongs to the family wavlm")

    @property
    def num_blocks(self) -> int:
        """N; the model has N + 1 states."""
        return len(self.heads)

    @property
    def head_width(self) -> int:
        """Dimensions of one head."""
        return self.width // self.total_heads

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form that `from_dict` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "EncoderConfig":
        """Read `to_dict`'s form. An unknown or missing key is a `ValueError` that names it."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown keys in the encoder configuration: {', '.join(unknown)}")
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"encoder configuration: {error}") from error

    @classmethod
    def uniform(
        cls,
        family: Family,
        *,
        width: int,
        blocks: int,
        heads: int,
        ffn: int,
        conv: int = 512,
        **others: Any,
    ) -> "EncoderConfig":
        """An unpruned model: the same numbers in every layer."""
        if family == "wavlm":
            others = {"relative_buckets": 320, "relative_distance": 800} | others
        return cls(
            family=family,
            width=width,
            conv_channels=(conv,) * 7,
            conv_full_width=conv,
            heads=(tuple(range(heads)),) * blocks,
            total_heads=heads,
            ffn=(ffn,) * blocks,
            **others,
        )

    @classmethod
    def base(cls, family: Family) -> "EncoderConfig":
        """The published Base size: 12 blocks of width 768."""
        return cls.uniform(family, width=768, blocks=12, heads=12, ffn=3072)

    @classmethod
    def large(cls, family: Family) -> "EncoderConfig":
        """The published Large size: 24 pre-norm blocks of width 1024, normalised waveforms."""
        return cls.uniform(
            family,
            width=1024,
            blocks=24,
            heads=16,
            ffn=4096,
            conv_norm="layer",
            conv_bias=family != "wavlm",
            pre_norm=True,
            normalize_waveform=True,
        )


class ConvLayer(nn.Module):
    """One strided convolution: convolution, its norm if it has one, GELU; gate on the channels."""

    gate: nn.Module | None

    def __init__(self, config: EncoderConfig, index: int) -> None:
        super().__init__()
        inputs = config.conv_channels[index - 1] if index else 1
        outputs = config.conv_channels[index]
        kernel, stride = config.conv_kernels[index], config.conv_strides[index]
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, bias=config.conv_bias)
        self.norm = config.conv_norm if config.conv_norm == "layer" or index == 0 else None
        if self.norm == "layer":
            self.layer_norm: nn.Module = nn.LayerNorm(outputs)
        elif self.norm == "group":
            self.layer_norm = nn.GroupNorm(outputs, outputs)
        self.gate = None

    def forward(self, x: Tensor, lengths: Tensor | None, came: Draw) -> tuple[Tensor, Draw]:
        """[B, C, T] to [B, C', T'], and which channels these are.

        Args:
            lengths: [B] in output frames, asks for exact group norms.
            came: which channels x has; their gates are still to be applied.
        """
        drawn = Draw.of(self.gate, 8)
        x = self._convolve(x, came, drawn)
        if self.norm == "layer":
            x = self.layer_norm(x.transpose(1, 2)).transpose(1, 2)
        elif self.norm == "group":
            norm = self.layer_norm
            assert isinstance(norm, nn.GroupNorm)
            weight, shift = drawn.rows(norm.weight), drawn.rows(norm.bias)
            if lengths is None:
                x = F.group_norm(x, len(weight), weight, shift, norm.eps)
            else:
                x = _exact_group_norm(x, lengths, norm.eps) * weight[:, None] + shift[:, None]
        return F.gelu(x), drawn

    def _convolve(self, x: Tensor, came: Draw, drawn: Draw) -> Tensor:
        conv = self.conv
        if came.values is None and drawn.values is None:
            return conv(x)
        bias = None if conv.bias is None else drawn.rows(conv.bias)
        return F.conv1d(x, came.columns(drawn.rows(conv.weight)), bias, conv.stride)


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
            nn.LayerNorm(channels, eps=self.eps) if config.projection_norm else nn.Identity()
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
        conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=config.pos_conv_groups)
        nn.init.normal_(conv.weight, std=2 * math.sqrt(1 / (kernel * width)))
        conv.bias.data.zero_()  # type: ignore[union-attr]
        self.conv = nn.utils.parametrizations.weight_norm(conv, dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        return F.gelu(self.conv(x.transpose(1, 2))[..., : x.shape[1]]).transpose(1, 2)


class SelfAttention(nn.Module):
    """Multi-head self-attention; for WavLM with its gated relative position bias.

    The bias of head h between frames i and j is g_h(x_i) d_h(j - i): a learned value per bucket of
    distances, shared by all blocks, times a gate computed from the head's slice of the block's
    input (Chen et al. 2021, arXiv:2110.13900, section III-A).
    """

    gate: nn.Module | None
    index: Tensor

    def __init__(self, config: EncoderConfig, index: int) -> None:
        super().__init__()
        self.heads, self.head_width = config.heads[index], config.head_width
        self.total_heads, self.dropout = config.total_heads, config.attention_dropout
        inner = len(self.heads) * self.head_width
        self.q_proj = _linear(config.width, inner)
        self.k_proj = _linear(config.width, inner)
        self.v_proj = _linear(config.width, inner)
        self.out_proj = _linear(inner, config.width)
        self.has_bias = config.family == "wavlm"
        if self.has_bias:
            self.gru_rel_pos_const = nn.Parameter(torch.ones(1, len(self.heads), 1, 1))
            self.gru_rel_pos_linear = nn.Linear(self.head_width, 8)
            if index == 0:
                self.rel_attn_embed = nn.Embedding(config.relative_buckets, config.total_heads)
        self.register_buffer("index", torch.tensor(self.heads, dtype=torch.long), persistent=False)
        self.gate = None

    def forward(self, x: Tensor, valid: Tensor | None, distances: Tensor | None) -> Tensor:
        """[B, T, D] to [B, T, D].

        Args:
            valid: [B, T], False where a frame is padding.
            distances: [H_total, T, T], WavLM's position values before gating.
        """
        if not self.heads:
            return self.out_proj.bias.expand(x.shape)
        drawn = Draw.of(self.gate)
        heads, rows = drawn.rows(self.index), drawn.spread(self.head_width)

        def split(projection: Linear) -> Tensor:
            return rows.into(projection, x).unflatten(-1, (-1, self.head_width)).transpose(1, 2)

        query, key, value = split(self.q_proj), split(self.k_proj), split(self.v_proj)
        mask = None if valid is None else valid[:, None, None, :]
        if distances is not None:
            if len(heads) < self.total_heads:
                distances = distances[heads]
            bias = self._position_gate(x, drawn).to(query.dtype) * distances.to(query.dtype)
            mask = bias if mask is None else bias.masked_fill(~mask, -math.inf)
        dropout = self.dropout if self.training else 0.0
        if mask is not None and mask.requires_grad and mask.device.type == "cpu":
            mixed = _attend(query, key, value, mask, dropout)
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, mask, dropout)
        mixed = mixed.transpose(1, 2).flatten(2)
        return rows.out_of(self.out_proj, mixed)

    def _position_gate(self, x: Tensor, drawn: Draw) -> Tensor:
        """[B, H, T, 1], the factor of each head's position values at each query frame."""
        slices = x.unflatten(-1, (self.total_heads, self.head_width)).transpose(1, 2)
        heads = drawn.rows(self.index)
        if len(heads) < self.total_heads:
            slices = slices[:, heads]
        pair = self.gru_rel_pos_linear(slices).unflatten(-1, (2, 4)).sum(-1).sigmoid()
        reset, update = pair.chunk(2, dim=-1)
        return reset * (update * drawn.rows(self.gru_rel_pos_const, dim=1) - 1.0) + 2.0


class FeedForward(nn.Module):
    """Two linear maps with GELU between; gate on the units."""

    gate: nn.Module | None

    def __init__(self, config: EncoderConfig, index: int) -> None:
        super().__init__()
        units = config.ffn[index]
        self.intermediate_dense = _linear(config.width, units)
        self.intermediate_dropout = nn.Dropout(config.activation_dropout)
        self.output_dense = _linear(units, config.width)
        self.output_dropout = nn.Dropout(config.hidden_dropout)
        self.gate = None

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        if not self.output_dense.in_features:
            return self.output_dropout(self.output_dense.bias.expand(x.shape))
        drawn = Draw.of(self.gate, 8)
        units = self.intermediate_dropout(F.gelu(drawn.into(self.intermediate_dense, x)))
        return self.output_dropout(drawn.out_of(self.output_dense, units))


class Block(nn.Module):
    """One transformer block, post-norm (Base) or pre-norm (Large)."""

    attention_gate: nn.Module | None
    ffn_gate: nn.Module | None

    def __init__(self, config: EncoderConfig, index: int) -> None:
        super().__init__()
        self.attention = SelfAttention(config, index)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layer_norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config, index)
        self.final_layer_norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.pre_norm = config.pre_norm
        self.attention_gate = None
        self.ffn_gate = None

    def forward(self, x: Tensor, valid: Tensor | None, distances: Tensor | None) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        if self.pre_norm:
            x = x + self._attend(self.layer_norm(x), valid, distances)
            return x + self._feed(self.final_layer_norm(x))
        x = self.layer_norm(x + self._attend(x, valid, distances))
        return self.final_layer_norm(x + self._feed(x))

    def _attend(self, x: Tensor, valid: Tensor | None, distances: Tensor | None) -> Tensor:
        x = self.dropout(self.attention(x, valid, distances))
        return x if self.attention_gate is None else x * self.attention_gate().to(x.dtype)

    def _feed(self, x: Tensor) -> Tensor:
        x = self.feed_forward(x)
        return x if self.ffn_gate is None else x * self.ffn_gate().to(x.dtype)


class Transformer(nn.Module):
    """Positional convolution, layer norm and the blocks."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.pos_conv_embed = PositionalConv(config)
        self.layer_norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
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
            ValueError: a waveform is shorter than one frame.
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
        shortest = waveforms.shape[1] if lengths is None else int(lengths.min())
        if self.frames(shortest) < 1:
            raise ValueError(f"a waveform of {shortest} samples is shorter than one frame")
        if self.config.normalize_waveform:
            waveforms = _normalized(waveforms, lengths)
        x, drawn = waveforms[:, None], Draw()
        for index, layer in enumerate(self.convolutions):
            exact = self.exact_padding and lengths is not None
            ends = self.frames(lengths, index + 1) if exact else None
            x, drawn = layer(x, ends, drawn)
        frames = None if lengths is None else self.frames(lengths)
        return self.feature_projection(drawn.whole(x).transpose(1, 2)), frames

    def transform(self, x: Tensor, frames: Tensor | None = None) -> Iterator[tuple[int, Tensor]]:
        """Yield (0, state 0), … (N, state N) of projected features x [B, T, D]."""
        valid = None if frames is None else _valid(frames, x.shape[1])
        if valid is not None:
            x = x.masked_fill(~valid[..., None], 0.0)
        x = x + self.encoder.pos_conv_embed(x)
        if not self.config.pre_norm:
            x = self.encoder.layer_norm(x)
        x = self.encoder.dropout(x)
        distances = self._position_values(x.shape[1]) if self.config.family == "wavlm" else None
        for index, block in enumerate(self.blocks):
            yield index, x
            x = block(x, valid, distances)
        if self.config.pre_norm:
            x = self.encoder.layer_norm(x)
        yield len(self.blocks), x

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

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write `config.json` and `model.safetensors` into `folder`."""
        from skill import checkpoints

        checkpoints.save_folder(self, folder)

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str]) -> "SpeechEncoder":
        """Read a folder of `save_pretrained` or of `transformers`, or a file of this project.

        Raises:
            SkillError: a tensor is missing, superfluous, of another shape, or not finite.
        """
        from skill import checkpoints

        return checkpoints.load(path)


def _linear(inputs: int, outputs: int) -> Linear:
    with warnings.catch_warnings():  # of an initialisation that a pruned layer has nothing for
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        return Linear(inputs, outputs)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, dropout: float) -> Tensor:
    """`scaled_dot_product_attention` of [B, H, T, d], plainly.

    For masks that need a gradient: on a CPU torch has no fused kernel for them, and its own plain
    way computes in float32 whatever the precision, which took three times as long.
    """
    batch, heads, frames, width = query.shape
    scores = torch.baddbmm(
        mask.expand(batch, heads, frames, frames).reshape(-1, frames, frames),
        (query / math.sqrt(width)).reshape(-1, frames, width),
        key.reshape(-1, frames, width).transpose(1, 2),
    )
    shares = F.dropout(scores.softmax(-1), dropout)
    return (shares @ value.reshape(-1, frames, width)).view(query.shape)


def _valid(lengths: Tensor, size: int) -> Tensor:
    """[B, size], True where a position lies inside its utterance."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def _exact_group_norm(x: Tensor, lengths: Tensor, eps: float) -> Tensor:
    """Zero mean and unit variance of every channel of x [B, C, T] within its utterance."""
    x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    valid = _valid(lengths, x.shape[2])[:, None].to(x.dtype)
    count = lengths[:, None, None].to(x.dtype)
    mean = (x * valid).sum(2, keepdim=True) / count
    variance = ((x - mean).square() * valid).sum(2, keepdim=True) / count
    return (x - mean) * (variance + eps).rsqrt()


def _normalized(waveforms: Tensor, lengths: Tensor | None) -> Tensor:
    """Zero mean and unit variance per utterance; padding stays zero."""
    if lengths is None:
        return F.layer_norm(waveforms, waveforms.shape[-1:], eps=1e-7)
    valid = _valid(lengths, waveforms.shape[1]).to(waveforms.dtype)
    mean = (waveforms * valid).sum(1, keepdim=True) / lengths[:, None]
    centred = (waveforms - mean) * valid
    variance = centred.square().sum(1, keepdim=True) / lengths[:, None]
    return centred * (variance + 1e-7).rsqrt()
