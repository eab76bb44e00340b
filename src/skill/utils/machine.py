"""The machine that computes: what its numbers depend on, and one line that says it.

The same code rounds differently with other instructions, libraries and numbers of threads, so an
artefact says which it was made with. `describe` gives the facts, `line` the sentence under a table.
"""

import os
import platform
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# oneDNN's levels, from the lowest, and what a processor must have for each beyond those before.
_LEVELS = {
    "SSE41": ("sse4_1",),
    "AVX": ("avx",),
    "AVX2": ("avx2",),
    "AVX2_VNNI": ("avx_vnni",),
    "AVX2_VNNI_2": ("avx_vnni_int8", "avx_ne_convert"),
    "AVX512_CORE": ("avx512_f", "avx512_bw", "avx512_vl", "avx512_dq"),
    "AVX512_CORE_VNNI": ("avx512_vnni",),
    "AVX512_CORE_BF16": ("avx512_bf16",),
    "AVX512_CORE_FP16": ("avx512_fp16",),
    "AVX512_CORE_AMX": ("amx_tile", "amx_int8", "amx_bf16"),
    "AVX512_CORE_AMX_FP16": ("amx_fp16",),
}
_SAME_LEVEL = {"AVX10_1_512": "AVX512_CORE_FP16", "AVX10_1_512_AMX": "AVX512_CORE_AMX"}
_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
_KIND = ("processor", "device", "instructions", "onednn_isa", "torch", "onednn", "blas")


def describe(precision: str | None = None) -> dict[str, Any]:
    """Processor, instruction sets in use, libraries, threads, and the precision computed in.

    Of one kind of machine all values but `threads` and `precision` are equal. `limits` are the
    variables of the environment that hold the instruction sets back; left out where none is set, as
    `device` (a GPU) and `precision` are where there is none to name.
    """
    import torch

    capabilities = torch.cpu.get_capabilities()
    libraries = torch.__config__.show()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    limits = {name: os.environ[name] for name in _LIMITS if os.environ.get(name)}
    facts = {
        "processor": _processor(str(capabilities.get("cpu_name") or platform.processor())),
        "device": device,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "onednn_isa": onednn_isa(capabilities, os.environ),
        "limits": limits or None,
        "torch": torch.__version__,
        "onednn": _version(libraries, r"MKL-DNN v([\d.]+)"),
        "blas": _version(libraries, r"(?:Math Kernel Library|MKL) Version ([\d.]+)", "MKL ")
        or _version(libraries, r"BLAS_INFO=(\w+)"),
        "threads": torch.get_num_threads(),
        "precision": precision,
    }
    return {key: value for key, value in facts.items() if value is not None}


def onednn_isa(capabilities: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """The instruction set that oneDNN takes: the highest that the processor has and no limit bars.

    oneDNN tells it to nobody but its log, so this follows its documentation ("CPU dispatcher
    control"). `capabilities` are those of `torch.cpu.get_capabilities`.
    """
    limit = next((environment[name] for name in _LIMITS[:2] if environment.get(name)), "ALL")
    limit = _SAME_LEVEL.get(limit.upper(), limit.upper())
    best = "none"
    for level, needs in _LEVELS.items():
        if all(capabilities.get(name) for name in needs):
            best = level
        if level == limit:
            break
    return best


def kind(machine: Mapping[str, Any]) -> tuple[str, ...]:
    """What two machines that should give the same numbers agree in."""
    return tuple(str(machine.get(key, "")) for key in _KIND)


def line(machines: Iterable[Mapping[str, Any]]) -> str:
    """One line on the machines that made some results; "" where none is known.

    Machines of one kind are named once, with all the threads and precisions that there were.
    """
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for machine in machines:
        groups.setdefault(kind(machine), []).append(machine)
    kinds = [_described(members) for _, members in sorted(groups.items())]
    if len(kinds) < 2:
        return "".join(f"Computed on {name}." for name in kinds)
    return f"Computed on {len(kinds)} kinds of machine, which round differently: " + "; ".join(
        f"({number}) {name}" for number, name in enumerate(kinds, start=1)
    ) + "."  # fmt: skip


def _described(members: list[Mapping[str, Any]]) -> str:
    first = members[0]
    threads = sorted({int(m["threads"]) for m in members if "threads" in m})
    precisions = sorted({str(m["precision"]) for m in members if "precision" in m})
    parts = [
        str(first.get("processor", "an unknown processor")),
        *([str(first["device"])] if "device" in first else []),
        f"instructions {first.get('instructions', '?')}, oneDNN's {first.get('onednn_isa', '?')}",
        f"torch {first.get('torch', '?')}, oneDNN {first.get('onednn', '?')}, "
        f"BLAS {first.get('blas', '?')}",
    ]
    if threads:
        parts.append(" or ".join(map(str, threads)) + f" thread{'s' * (threads[-1] > 1)}")
    return ", ".join([*parts, *([" and ".join(precisions)] if precisions else [])])


def _processor(name: str) -> str:
    """The name with family and model, since virtual machines hide the rest of it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return name or platform.machine()
    facts = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", text, re.MULTILINE))
    name = facts.get("model name", name) or platform.machine()
    if {"cpu family", "model"} <= facts.keys():
        return f"{name} (family {facts['cpu family']}, model {facts['model']})"
    return name


def _version(text: str, pattern: str, before: str = "") -> str | None:
    match = re.search(pattern, text)
    return before + match.group(1) if match else None
