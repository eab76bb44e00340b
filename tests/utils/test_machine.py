"""What an artefact says of the machine, and the line that stands under a table."""

import os
import subprocess
import sys

import pytest
import torch

from skill.utils import machine
from skill.utils.provenance import stamp

SERVER = "avx512_f avx512_bw avx512_vl avx512_dq avx512_vnni avx512_bf16 avx512_fp16"
OLD = dict.fromkeys(["sse4_1", "avx", "avx2"], True)
INTEL = OLD | dict.fromkeys(f"{SERVER} amx_tile amx_int8 amx_bf16".split(), True)
LAPTOP = OLD | {"avx_vnni": True, "avx512_f": False}


@pytest.mark.parametrize(
    ("capabilities", "environment", "expected"),
    [
        (INTEL, {}, "AVX512_CORE_AMX"),
        (INTEL, {"ONEDNN_MAX_CPU_ISA": "avx512_core_bf16"}, "AVX512_CORE_BF16"),
        (INTEL, {"DNNL_MAX_CPU_ISA": "AVX2"}, "AVX2"),
        (INTEL, {"ONEDNN_MAX_CPU_ISA": "AVX10_1_512"}, "AVX512_CORE_FP16"),
        (INTEL, {"ONEDNN_MAX_CPU_ISA": "DEFAULT"}, "AVX512_CORE_AMX"),
        (INTEL | {"avx512_fp16": False}, {}, "AVX512_CORE_AMX"),
        (LAPTOP, {}, "AVX2_VNNI"),
        (LAPTOP, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, "AVX2_VNNI"),
        ({}, {}, "none"),
    ],
)
def test_the_instruction_set_is_the_highest_that_is_there_and_allowed(
    capabilities: dict[str, bool], environment: dict[str, str], expected: str
) -> None:
    assert machine.onednn_isa(capabilities, environment) == expected


def test_every_stamp_names_the_machine_and_the_precision() -> None:
    made = stamp([], {}, "bf16")["machine"]
    assert {"processor", "instructions", "onednn_isa", "torch", "onednn", "blas"} <= made.keys()
    assert made["precision"] == "bf16" and made["threads"] >= 1
    assert "precision" not in stamp([], {})["machine"]


def test_limits_of_the_environment_are_seen() -> None:
    """In a process of its own: torch looks at them once, at its start."""
    code = "from skill.utils.machine import describe; d = describe(); "
    code += "print(d['instructions'], d['onednn_isa'], sorted(d['limits']))"
    limits = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
    command = [sys.executable, "-c", code]
    printed = subprocess.run(
        command, env=os.environ | limits, check=True, text=True, capture_output=True
    ).stdout
    expected = machine.onednn_isa(dict(torch.cpu.get_capabilities()), limits)
    limited = "['ATEN_CPU_CAPABILITY', 'ONEDNN_MAX_CPU_ISA']"
    assert printed.split(maxsplit=2) == ["DEFAULT", expected, f"{limited}\n"]


def test_one_line_names_each_kind_of_machine_once() -> None:
    here = {
        "processor": "P", "instructions": "AVX2", "onednn_isa": "AVX2", "torch": "2", "onednn": "3",
        "blas": "MKL 1", "threads": 1, "precision": "float32",
    }  # fmt: skip
    same = here | {"threads": 2, "precision": "bf16"}
    assert machine.line([]) == ""
    assert machine.line([here, same, here]) == (
        "Computed on P, instructions AVX2, oneDNN's AVX2, torch 2, oneDNN 3, BLAS MKL 1, "
        "1 or 2 threads, bf16 and float32."
    )
    for key in ("processor", "onednn_isa", "torch", "blas"):
        other = here | {key: "another"}
        assert machine.kind(other) != machine.kind(here) == machine.kind(same)
        said = machine.line([here, other])
        assert said.startswith("Computed on 2 kinds of machine, which round differently: (1) ")
        assert said.count("another") == 1
