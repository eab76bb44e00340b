"""Which units of a gated module are computed: those whose gates are drawn open.

Axes: n units of a module, k of them computed; B utterances, T frames.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class GateSample:
    """One sample of a module's gates: their values z [n], and the units to compute [k] of n.

    A unit whose gate is 0 adds nothing to what follows, and the clamp at 0 lets no gradient through
    to the unit or to the gate. So it need not be computed, and nothing changes but rounding. The
    values multiply the weights that read the units where these are fewer numbers than the outputs.
    None: there is no gate; all units are computed.
    """

    values: Tensor | None = None
    units: Tensor | None = None

    @classmethod
    def draw(cls, gate: nn.Module | None, multiple: int = 1) -> "GateSample":
        """Sample a gate. k is at least 1 and a multiple of `multiple`, which processors like."""
        if gate is None:
            return cls()
        values = gate()
        if torch.compiler.is_compiling():  # a size that changes would compile every step anew
            return cls(values)
        number = max(1, int(values.count_nonzero()))
        number = -(-number // multiple) * multiple
        if number > 0.75 * len(values):  # copying their weights would cost what it saves
            return cls(values)
        return cls(values, (values == 0).int().argsort(stable=True)[:number])

    def repeat(self, width: int) -> "GateSample":
        """The same for units of `width` rows each."""
        if self.values is None:
            return self
        values = self.values.repeat_interleave(width)
        if self.units is None:
            return GateSample(values)
        rows = self.units[:, None] * width + torch.arange(width, device=values.device)
        return GateSample(values, rows.flatten())

    def linear_in(self, layer: nn.Linear, x: Tensor) -> Tensor:
        """The units' inputs, [..., m] to [..., k]."""
        if self.units is None:  # the layer itself, so that hooks and adapters take part
            return layer(x)
        return F.linear(x, self.select(layer.weight), self.select(layer.bias))

    def linear_out(self, layer: nn.Linear, x: Tensor) -> Tensor:
        """What follows from the units' outputs, [..., k] to [..., m]."""
        if self.values is None:
            return layer(x)
        weight, values = self.select(layer.weight, dim=1), self.select(self.values)
        if x.numel() < weight.numel():  # the smaller is multiplied
            x = x * values.to(x.dtype)
        else:
            weight = weight * values
        return F.linear(x, weight, layer.bias)

    def select(self, weight: Tensor, dim: int = 0) -> Tensor:
        """What makes the units, [n, …] to [k, …]."""
        return weight if self.units is None else weight.index_select(dim, self.units)

    def conv_weight(self, weight: Tensor) -> Tensor:
        """What reads the units, [m, n, …] to [m, k, …], times the gates."""
        if self.values is None:
            return weight
        values = self.select(self.values).to(weight.dtype)
        return self.select(weight, dim=1) * values.view(-1, *(1,) * (weight.ndim - 2))

    def scatter(self, x: Tensor) -> Tensor:
        """The units' outputs [B, k, T], times the gates, among zeros: [B, n, T]."""
        if self.values is None:
            return x
        x = x * self.select(self.values).to(x.dtype)[:, None]
        if self.units is None:
            return x
        return x.new_zeros(len(x), len(self.values), x.shape[2]).index_copy(1, self.units, x)
