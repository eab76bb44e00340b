"""In which precision models compute."""

from contextlib import AbstractContextManager, nullcontext

import torch

_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def computed(precision: str, device: str) -> str:
    """`precision`, or float32 where `device` would only imitate bf16.

    "auto" is float32 here: a job that has asked the machine (`skill.training.machine_check`) says
    which it is.

    Halves are asked for because they are fast. Processors without AVX-512 have no bf16 kernels:
    torch then converts every number back and forth, which took seven times as long as float32.
    GPUs before Ampere have none, either.
    """
    if device == "cpu":
        imitated = "AVX512" not in torch.backends.cpu.get_cpu_capability()
    else:
        imitated = not torch.cuda.is_bf16_supported(including_emulation=False)
    return "float32" if precision == "auto" or (precision == "bf16" and imitated) else precision


def exact_products() -> None:
    """float32 on a GPU is float32, in convolutions too: torch's default there is TF32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def autocast(precision: str, device: str) -> AbstractContextManager[object]:
    """A forward pass in `precision` ("float32", "bf16", "fp16") on "cpu" or "cuda"; see `computed`.

    Weights stay in float32.
    """
    half = _HALVES.get(computed(precision, device))
    return nullcontext() if half is None else torch.autocast(device, half)
