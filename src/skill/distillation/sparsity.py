"""The expected size of a gated encoder, and the loss that brings it to a target.

Sizes of the Base models (all gates open):

| | HuBERT | WavLM |
|---|---|---|
| `transformers` | 94,371,712 | 94,381,936 |
| without the mask embedding (768), which distillation does not use | 94,370,944 | 94,381,168 |
| with a mask per channel of the last convolution (512), as DPHuBERT | 94,371,456 | 94,381,680 |

A pruned model holds one vector more (`FeatureProjection.removed`, 768 numbers at Base size).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from skill.distillation.gates import HardConcrete, gates_of
from skill.encoder import SpeechEncoder
from skill.utils.errors import SkillError


def full_size(encoder: SpeechEncoder) -> int:
    """Parameters of an ungated, unpruned encoder in DPHuBERT's count (table above)."""
    gates = sum(gate.log_alpha.numel() for _, gate in gates_of(encoder))
    masks = 0 if encoder.config.conv_masked else encoder.config.conv_channels[-1]
    return encoder.num_parameters() - gates + masks


def expected_size(encoder: SpeechEncoder) -> Tensor:
    """The expected number of parameters, differentiable, in DPHuBERT's count.

    Products of expectations, as in DPHuBERT's code: a convolution counts E[in] E[out] k.
    """
    saved = removed_parameters(encoder, lambda gate: gate.expected_open().double().cpu())
    return torch.as_tensor(full_size(encoder) - saved, dtype=torch.float64)


def removed_parameters(encoder: SpeechEncoder, count: Callable[[HardConcrete], Any]) -> Any:
    """How many parameters go when `count(gate)` units of each gated module stay."""
    config = encoder.config

    def left(gate: nn.Module | None, full: int) -> Any:
        return full if gate is None else count(gate)  # type: ignore[arg-type]

    saved: Any = 0.0
    inputs: Any = 1
    full_inputs = 1
    for layer, full, kernel in zip(
        encoder.convolutions,
        config.conv_channels,
        config.conv_kernels,
        strict=True,
    ):
        outputs = left(layer.gate, full)
        extra = config.conv_bias + (2 if layer.norm else 0)
        saved += full * (full_inputs * kernel + extra) - outputs * (inputs * kernel + extra)
        inputs, full_inputs = outputs, full
    norm = 2 if config.projection_norm else 0
    saved += (full_inputs - inputs) * (norm + config.width + 1)  # 1: its mask
    head = config.head_width * (4 * config.width + 3) + (config.family == "wavlm")
    unit = 2 * config.width + 1
    for block, heads, ffn in zip(encoder.blocks, config.heads, config.ffn, strict=True):
        kept = left(block.attention.gate, len(heads)) * left(block.attention_gate, 1)
        saved += (len(heads) - kept) * head
        kept = left(block.feed_forward.gate, ffn) * left(block.ffn_gate, 1)
        saved += (ffn - kept) * unit
    return saved


def reachable_sparsity(encoder: SpeechEncoder) -> float:
    """The sparsity with every gate closed but one channel per convolution."""
    convolutions = {id(layer.gate) for layer in encoder.convolutions}
    return removed_parameters(encoder, lambda gate: id(gate) in convolutions) / full_size(encoder)


class SparsityTarget(nn.Module):
    """The augmented Lagrangian λ1 (ŝ − s) + λ2 (ŝ − s)², with a target s that rises from 0.

    ŝ is the expected sparsity. The λ start at 0 and ascend (Wang et al. 2020, arXiv:1910.04732)."""

    def __init__(self, encoder: SpeechEncoder, sparsity: float, ramp: int) -> None:
        """`ramp`: steps over which the target rises linearly to `sparsity`.

        Raises:
            SkillError: the gates cannot reach `sparsity`.
        """
        super().__init__()
        limit = reachable_sparsity(encoder)
        if sparsity > limit:
            raise SkillError(
                f"a sparsity of {sparsity} is out of reach: with all gates closed it is {limit:.4f}"
            )
        self.sparsity, self.ramp, self.full = sparsity, ramp, full_size(encoder)
        self.lambda1 = nn.Parameter(torch.zeros(()))
        self.lambda2 = nn.Parameter(torch.zeros(()))

    def target(self, step: int) -> float:
        """The target at a step."""
        return self.sparsity * min(1.0, step / self.ramp) if self.ramp else self.sparsity

    def forward(self, encoder: SpeechEncoder, step: int) -> tuple[Tensor, Tensor]:
        """The penalty and the expected sparsity."""
        device = self.lambda1.device
        sparsity = (1 - expected_size(encoder) / self.full).float().to(device)
        gap = sparsity - self.target(step)
        return self.lambda1 * gap + self.lambda2 * gap.square(), sparsity

    def figures(self, step: int) -> dict[str, Tensor]:
        """What the curve shows."""
        return {
            "target_sparsity": torch.tensor(self.target(step)),
            "lambda1": self.lambda1.detach(),
            "lambda2": self.lambda2.detach(),
        }
