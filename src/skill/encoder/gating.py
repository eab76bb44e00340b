"""Which units of a gated module are computed: those whose gates are drawn open.

Axes: n units of a module, k of them computed; B utterances, T frames.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from skill.encoder.linear import Linear, linear


@dataclass(frozen=True)
class Draw:
    """One draw of a module's gates: their values z [n], and which of the n units to compute [k].

    A unit whose gate is 0 adds nothing to what follows, and the clamp at 0 lets no gradient through
    to the unit or to the gate. So it need not be computed, and nothing changes but rounding. The
    values multiply the weights that read the units where these are fewer numbers than the outputs.
    None: there is no gate; all units are computed.
    """

    values: Tensor | None = None
    units: Tensor | None = None

    @classmethod
    def of(cls, gate: nn.Module | None, multiple: int = 1) -> "Draw":
        """Ask a gate. k is a multiple of `multiple`, for the processor's sake, and at least 1."""
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

    def spread(self, width: int) -> "Draw":
        """The same for units of `width` rows each."""
        if self.values is None:
            return self
        values = self.values.repeat_interleave(width)
        if self.units is None:
            return Draw(values)
        rows = self.units[:, None] * width + torch.arange(width, device=values.device)
        return Draw(values, rows.flatten())

    def into(self, layer: Linear, x: Tensor) -> Tensor:
        """The units' inputs, [..., m] to [..., k]."""
        if self.units is None:  # the layer itself, so that hooks and adapters take part
            return layer(x)
        return linear(x, self.rows(layer.weight), self.rows(layer.bias))

    def out_of(self, layer: Linear, x: Tensor) -> Tensor:
        """What follows from the units' outputs, [..., k] to [..., m]."""
        if self.values is None:
            return layer(x)
        weight, values = self.rows(layer.weight, dim=1), self.rows(self.values)
        if x.numel() < weight.numel():  # the smaller is multiplied
            x = x * values.to(x.dtype)
        else:
            weight = weight * values
        return linear(x, weight, layer.bias)

    def rows(self, weight: Tensor, dim: int = 0) -> Tensor:
        """What makes the units, [n, …] to [k, …]."""
        return weight if self.units is None else weight.index_select(dim, self.units)

    def columns(self, weight: Tensor) -> Tensor:
        """What reads the units, [m, n, …] to [m, k, …], times the gates."""
        if self.values is None:
            return weight
        values = self.rows(self.values).to(weight.dtype)
        return self.rows(weight, dim=1) * values.view(-1, *(1,) * (weight.ndim - 2))

    def whole(self, x: Tensor) -> Tensor:
        """The units' outputs [B, k, T], times the gates, among zeros: [B, n, T]."""
        if self.values is None:
            return x
        x = x * self.rows(self.values).to(x.dtype)[:, None]
        if self.units is None:
            return x
        return x.new_zeros(len(x), len(self.values), x.shape[2]).index_copy(1, self.units, x)
