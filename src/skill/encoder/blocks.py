"""The transformer's blocks: attention, feed-forward units, norms.

Axes: B utterances, T frames (20 ms), D width, H heads, d dimensions of a head.
"""

import math
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import EncoderConfig
from .float32 import LayerNorm
from .gating import GateSample


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
        gates = GateSample.draw(self.gate)
        heads, rows = gates.select(self.index), gates.repeat(self.head_width)

        def split(projection: nn.Linear) -> Tensor:
            return (
                rows.linear_in(projection, x).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
            )

        query, key, value = split(self.q_proj), split(self.k_proj), split(self.v_proj)
        mask = None if valid is None else valid[:, None, None, :]
        if distances is not None:
            if len(heads) < self.total_heads:
                distances = distances[heads]
            bias = self._position_gate(x, gates).to(query.dtype) * distances.to(query.dtype)
            mask = bias if mask is None else bias.masked_fill(~mask, -math.inf)
        dropout = self.dropout if self.training else 0.0
        if mask is not None and mask.requires_grad and mask.device.type == "cpu":
            mixed = _attend(query, key, value, mask, dropout)
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, mask, dropout)
        mixed = mixed.transpose(1, 2).flatten(2)
        return rows.linear_out(self.out_proj, mixed)

    def _position_gate(self, x: Tensor, gates: GateSample) -> Tensor:
        """[B, H, T, 1], the factor of each head's position values at each query frame."""
        slices = x.unflatten(-1, (self.total_heads, self.head_width)).transpose(1, 2)
        heads = gates.select(self.index)
        if len(heads) < self.total_heads:
            slices = slices[:, heads]
        pair = self.gru_rel_pos_linear(slices).unflatten(-1, (2, 4)).sum(-1).sigmoid()
        reset, update = pair.chunk(2, dim=-1)
        return reset * (update * gates.select(self.gru_rel_pos_const, dim=1) - 1.0) + 2.0


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
        gates = GateSample.draw(self.gate, 8)
        units = self.intermediate_dropout(F.gelu(gates.linear_in(self.intermediate_dense, x)))
        return self.output_dropout(gates.linear_out(self.output_dense, units))


class Block(nn.Module):
    """One transformer block, post-norm (Base) or pre-norm (Large)."""

    attention_gate: nn.Module | None
    ffn_gate: nn.Module | None

    def __init__(self, config: EncoderConfig, index: int) -> None:
        super().__init__()
        self.attention = SelfAttention(config, index)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layer_norm = LayerNorm(config.width, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config, index)
        self.final_layer_norm = LayerNorm(config.width, eps=config.layer_norm_eps)
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


def _linear(inputs: int, outputs: int) -> nn.Linear:
    with warnings.catch_warnings():  # of an initialisation that a pruned layer has nothing for
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        return nn.Linear(inputs, outputs)


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
