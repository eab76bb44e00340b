"""What the processes of one training tell each other; alone, a process has nobody to ask."""

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

Value = TypeVar("Value")


def gather(value: Value) -> list[Value]:
    """The values of all processes, by rank."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def average_gradients(parameters: list[nn.Parameter], audio: int, figures: dict[str, float]) -> int:
    """Divide by the audio of all processes, after adding up over them; returns that audio.

    `audio`: samples of this process; gradients and `figures` are sums weighted by its seconds.
    """
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [p.grad for p in parameters if p.grad is not None]
    if dist.is_initialized():
        shares = gather((audio, figures))
        audio = sum(share for share, _ in shares)
        for name in {name for _, part in shares for name in part}:
            figures[name] = sum(part.get(name, 0.0) for _, part in shares)
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        parts = flat.split([g.numel() for g in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
    seconds = audio / 16000
    if seconds:
        torch._foreach_div_(gradients, seconds)
        for name in figures:
            figures[name] /= seconds
    return audio
