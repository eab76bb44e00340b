"""bf16 is computed where a processor has kernels for it, and nowhere else."""

import pytest
import torch

from skill.training.precision import autocast, computed


@pytest.mark.parametrize(
    ("capability", "precision", "device", "expected"),
    [
        ("AVX512", "bf16", "cpu", "bf16"),
        ("AVX2", "bf16", "cpu", "float32"),
        ("DEFAULT", "bf16", "cpu", "float32"),
        ("Ampere", "bf16", "cuda", "bf16"),
        ("Volta", "bf16", "cuda", "float32"),
        ("Volta", "fp16", "cuda", "fp16"),
        ("AVX2", "float32", "cpu", "float32"),
    ],
)
def test_never_less_exact_than_asked_and_never_slower_than_float32(
    monkeypatch: pytest.MonkeyPatch, capability: str, precision: str, device: str, expected: str
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: capability == "Ampere"
    )
    assert computed(precision, device) == expected


@pytest.mark.parametrize(
    ("capability", "expected"), [("AVX512", torch.bfloat16), ("AVX2", torch.float32)]
)
def test_products_have_the_precision_that_is_computed(
    monkeypatch: pytest.MonkeyPatch, capability: str, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    weight = torch.eye(3)
    with autocast("bf16", "cpu"):
        assert (weight @ weight).dtype == expected
    assert (weight @ weight).dtype == torch.float32
