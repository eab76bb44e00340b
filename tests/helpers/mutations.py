"""Valid content, changed at random places: values of JSON, lines of text, bytes, tensors."""

import copy
import json
import zlib
from typing import Any

import torch
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor

from skill.utils.files import _tensor_sum, _text_sum, canonical_json

ODD: list[Any] = [
    None, True, False, 0, -1, 1, 7, 65_536, 2_000_000_000, 2**63, 10**400, -0.5, 1e308,
    float("nan"), float("inf"), "", "x", "1", "\x1b[2J", "\0", "\ud800", "../x", "a" * 500,
    [], {}, [[]], [1, 2],
    ["x", 1], {"x": 1}, [None], {"": None},
]  # fmt: skip
ODD_BYTES = [b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n\n", b'"', b",", b"=", b"\x1b[2J",
             b"9" * 30, b"-1", b"nan", b"inf", b"\xc3", b"*", b"&a", b"[" * 200]  # fmt: skip


@st.composite
def places(draw: st.DrawFn, value: Any) -> tuple[Any, ...]:
    """The path to a part of a JSON value; of what lies beside each other all are as likely."""
    path: tuple[Any, ...] = ()
    while isinstance(value, dict | list) and value and (not path or draw(st.booleans())):
        key = draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
        path, value = (*path, key), value[key]
    return path


@st.composite
def json_values(draw: st.DrawFn, value: Any, changes: int = 2) -> Any:
    """`value` with up to `changes` parts replaced, removed, added, doubled or swapped."""
    changed = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, changes))):
        place = draw(places(changed))
        odd = copy.deepcopy(draw(st.sampled_from(ODD)))
        if not place:
            changed = odd if draw(st.integers(0, 9)) == 0 else changed
            continue
        inside = changed
        for key in place[:-1]:
            inside = inside[key]
        how = draw(st.sampled_from(["replace", "replace", "remove", "add", "double", "nest"]))
        if how == "replace":
            inside[place[-1]] = odd
        elif how == "remove":
            del inside[place[-1]]
        elif how == "nest":
            inside[place[-1]] = [inside[place[-1]]]
        elif isinstance(inside, list):
            inside.append(odd if how == "add" else copy.deepcopy(inside[place[-1]]))
        else:
            inside["another"] = odd
    return changed


@st.composite
def contents(draw: st.DrawFn, content: bytes, changes: int = 3) -> bytes:
    """Bytes with up to `changes` of them flipped, cut out, put in or repeated; or cut short."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, changes))):
        at = draw(st.integers(0, max(0, len(changed) - 1)))
        end = at + draw(st.integers(0, 40))
        how = draw(st.sampled_from(["flip", "put", "put", "cut", "repeat", "end"]))
        if how == "flip" and changed:
            changed[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "put":
            changed[at : at if draw(st.booleans()) else end] = draw(st.sampled_from(ODD_BYTES))
        elif how == "cut":
            del changed[at:end]
        elif how == "repeat":
            changed[at:at] = changed[at:end] * draw(st.sampled_from([1, 2, 100]))
        elif how == "end":
            del changed[at:]
    return bytes(changed)


KINDS = [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.uint8]


@st.composite
def tensor_files(draw: st.DrawFn, tensors: dict[str, Tensor], header: dict[str, Any]) -> bytes:
    """A file as `write_tensors` writes it, of a changed header or tensors, with right checksums."""
    changed = dict(tensors)
    written: Any = header
    if draw(st.booleans()):
        written = draw(json_values(header))
    else:
        name = draw(st.sampled_from(sorted(changed)))
        how = draw(st.sampled_from(["kind", "shape", "remove", "rename", "value", "empty", "axis"]))
        tensor = changed.pop(name)
        if how == "kind":
            changed[name] = tensor.to(draw(st.sampled_from(KINDS)))
        elif how == "shape":
            changed[name] = tensor.reshape(-1)[: draw(st.integers(1, 9))].clone()
        elif how == "rename":
            changed[draw(st.sampled_from(["x", "", "encoder.x", "fold0.x", "\x1b[2J"]))] = tensor
        elif how == "value":
            flat = tensor.clone().reshape(-1)
            odd = draw(st.sampled_from([float("nan"), float("inf"), -1, 3e38, 2_000_000_000]))
            if len(flat) and (tensor.is_floating_point() or odd in (-1, 2_000_000_000)):
                flat[draw(st.integers(0, len(flat) - 1))] = odd
            changed[name] = flat.reshape(tensor.shape)
        elif how == "empty":
            changed[name] = tensor.reshape(-1)[:0].clone()
        elif how != "remove":
            changed[name] = tensor[None].contiguous()
    if not isinstance(written, dict):
        return save(changed, {"skill": json.dumps(written)})
    sums = {"header": _text_sum(canonical_json(written)), "tensors": _tensor_sum(changed)}
    text = json.dumps(written | {"sha256": sums}, sort_keys=True)
    return save(changed, {"skill": text})


def gzipped(content: bytes) -> bytes:
    """As gzip, without a time."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(content) + packer.flush()
