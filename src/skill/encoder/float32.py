"""Layers that are computed in float32, whatever the precision around them.

The waveform's convolutions, the positional convolution and the norms beside them are a small part
of the work and the part that rounding harms: in bfloat16 they cost 7 to 11 % of the states, and on
processors with AMX oneDNN's bfloat16 convolution is wrong for some lengths (pytorch issues 163347
and 169688). Neither autocast nor weights in half precision change that; float64 stays float64.

Axes: B utterances, C channels, T frames, D width.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def widened(x: Tensor) -> Tensor:
    """x in float32 if its precision is less."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def no_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A context in which operations on x's device keep the precision of their inputs."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def autocast_to(dtype: torch.dtype, x: Tensor) -> AbstractContextManager[object]:
    """A context in which products on x's device are computed in `dtype`, if that is a half.

    For weights that are stored in it: what goes from block to block then stays in float32.
    """
    kind = x.device.type
    half = dtype in (torch.float16, torch.bfloat16) and torch.amp.is_autocast_available(kind)
    return torch.autocast(kind, dtype) if half else nullcontext()


def conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int] = (0,),
    groups: int = 1,
) -> Tensor:
    """`F.conv1d` in float32: [B, C, T], [C', C / groups, k] and [C'] to [B, C', T']."""
    bias = None if bias is None else widened(bias)
    with no_autocast(x):
        return F.conv1d(
            widened(x), widened(weight), bias, tuple(stride), tuple(padding), groups=groups
        )


class Conv1d(nn.Conv1d):
    """`nn.Conv1d` in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C', T']."""
        assert not isinstance(self.padding, str)
        return conv1d(x, self.weight, self.bias, self.stride, self.padding, self.groups)


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        with no_autocast(x):
            weight, bias = widened(self.weight), widened(self.bias)
            return F.layer_norm(widened(x), self.normalized_shape, weight, bias, self.eps)


class Linear(nn.Linear):
    """`nn.Linear` in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] to [..., D']."""
        with no_autocast(x):
            return F.linear(widened(x), widened(self.weight), widened(self.bias))
