"""The processes of one training, and what they tell each other; alone, there is nobody to ask."""

import os
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

Value = TypeVar("Value")


@dataclass(frozen=True)
class World:
    """This process among those of `torchrun`: rank of size, on a device."""

    rank: int
    size: int
    device: str

    @classmethod
    def start(cls) -> "World":
        """Join the other processes, on a GPU each where there are any."""
        cuda = torch.cuda.is_available()
        if "LOCAL_RANK" not in os.environ:
            return cls(0, 1, "cuda" if cuda else "cpu")
        device = f"cuda:{os.environ['LOCAL_RANK']}" if cuda else "cpu"
        if cuda:  # where NCCL looks for the tensors of this process
            torch.cuda.set_device(device)
        if not dist.is_initialized():
            dist.init_process_group("nccl" if cuda else "gloo")
        return cls(dist.get_rank(), dist.get_world_size(), device)

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0


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
