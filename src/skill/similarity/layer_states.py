"""Stacks of layer states in safetensors: this project's activations, or anybody's.

Read is any file that holds one of these:

* `states` [N, L, D] with the header that `write_activations` writes;
* one tensor [L, N, D], called `states` or the only one of three axes;
* one tensor [N, D_l] per layer, in natural order of their names ("layer2" before "layer10").

An integer tensor `utterance` [N] says which recording, image or document a frame is of. Without
it, frames count as 50 runs of equal length, so that the bootstrap has something to draw.

Axes: L states, N frames, D width.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skill.data.manifest import Utterance
from skill.similarity.centering import center_states
from skill.similarity.sample_space import BlockSums, block_sums
from skill.similarity.stability import utterance_bounds
from skill.utils.errors import SkillError
from skill.utils.files import read_metadata, read_tensors, write_tensors

_RUNS = 50
_WHOLE = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True)
class LayerStates:
    """States [N, D_l] of one or more models over the same frames.

    `names` [L] are "model:layer", `stacks` [L] number the models, `utterance` [N] the recordings,
    whose names are `utterances` and whose lengths in seconds are `seconds`, where known.
    """

    states: list[Tensor]
    names: list[str]
    stacks: list[int]
    utterance: Tensor
    utterances: list[str]
    seconds: list[float] | None

    def first(self, frames: int | None) -> "LayerStates":
        """The first `frames` frames; all where None."""
        if frames is None or frames >= len(self.utterance):
            return self
        states = [state[:frames] for state in self.states]
        owner = self.utterance[:frames]
        return LayerStates(states, self.names, self.stacks, owner, self.utterances, self.seconds)

    def require_finite(self) -> "LayerStates":
        """Itself.

        Raises:
            SkillError: a value is NaN or infinite; model, layer and utterance are named.
        """
        for name, state in zip(self.names, self.states, strict=True):
            for start in range(0, len(state), 1024):
                bad = ~torch.isfinite(state[start : start + 1024]).all(dim=1)
                if bool(bad.any()):
                    frame = start + int(torch.nonzero(bad)[0])
                    raise SkillError(
                        f"{name} is NaN or infinite at frame {frame}, in utterance "
                        f"{self.utterances[int(self.utterance[frame])]}"
                    )
        return self

    def sums(self, *, kernel: str, bandwidth: float, standardize: bool) -> BlockSums:
        """Kernel sums between all utterances."""
        prepared = center_states(self.states, self.names, standardize)
        bounds = utterance_bounds(self.utterance.numpy())
        return block_sums(prepared, bounds, kernel=kernel, bandwidth=bandwidth)


def write_activations(
    path: Path,
    teacher: str,
    states: Tensor,
    shift: Tensor,
    owner: Tensor,
    utterances: Sequence[Utterance],
    provenance: Any,
) -> None:
    """The states of a teacher on a calibration set.

    Args:
        states: [N, L, D] in half precision, less `shift`.
        shift: [L, D], a mean: CKA does not see it, and half precision is not wasted on it.
        owner: [N], the number of the utterance that a frame is of.
    """
    header = {
        "kind": "activations",
        "teacher": teacher,
        "utterances": [utterance.id for utterance in utterances],
        "seconds": [utterance.seconds for utterance in utterances],
        "provenance": provenance,
    }
    write_tensors(path, {"states": states, "shift": shift, "utterance": owner}, header)


def read_stacks(paths: Sequence[Path]) -> LayerStates:
    """One stack of all states in the files, which have to hold the same frames.

    Raises:
        SkillError: a file that is no stack, is damaged, or holds other frames than the first.
    """
    parts = [read_stack(path) for path in paths]
    first = parts[0]
    for path, part in zip(paths, parts, strict=True):
        same = torch.equal(part.utterance, first.utterance) and part.utterances == first.utterances
        if not same:
            raise SkillError(
                f"{path}: its frames are not those of {paths[0]}; states can only be compared over "
                "the same frames of the same utterances"
            )
    models = [name.rpartition(":")[0] for part in parts for name in part.names]
    if len({part.names[0] for part in parts}) < len(parts):
        raise SkillError(f"{', '.join(map(str, paths))}: two stacks have the same name")
    order = list(dict.fromkeys(models))
    return LayerStates(
        [state for part in parts for state in part.states],
        [name for part in parts for name in part.names],
        [order.index(model) for model in models],
        first.utterance,
        first.utterances,
        first.seconds,
    ).require_finite()


def read_stack(path: Path) -> LayerStates:
    """The stack in one file, not checked for NaN.

    Raises:
        SkillError: no readable file, no states in it, or states that are not what was written.
    """
    tensors, header = _load(path)
    if header.get("kind") == "activations":
        return _from_activations(path, tensors, header)
    owner = tensors.pop("utterance", None)
    layers = _layers(path, tensors)
    if not layers or any(state.numel() == 0 for state in layers.values()):
        raise SkillError(f"{path}: holds no frames")
    frames = len(next(iter(layers.values())))
    if owner is None:
        owner = torch.arange(frames) * min(_RUNS, frames) // frames
    if owner.shape != (frames,) or owner.dtype not in _WHOLE:
        raise SkillError(f"{path}: `utterance` must be {frames} whole numbers, one for each frame")
    _, numbered = np.unique(owner.numpy(), return_inverse=True)
    count = int(numbered.max()) + 1
    states = list(layers.values())
    if (np.diff(numbered) < 0).any():  # the bootstrap draws neighbours together
        order = np.argsort(numbered, kind="stable")
        numbered = numbered[order]
        states = [state[torch.from_numpy(order)] for state in states]
    return LayerStates(
        states,
        [f"{path.stem}:{name}" for name in layers],
        [0] * len(layers),
        torch.from_numpy(numbered),
        [f"number {number}" for number in range(count)],
        None,
    )


def _from_activations(
    path: Path, tensors: dict[str, Tensor], header: dict[str, Any]
) -> LayerStates:
    """The stack that `write_activations` wrote."""
    stored, owner = tensors.get("states"), tensors.get("utterance")
    if stored is None or owner is None:
        raise SkillError(f"{path}: activations without `states` and `utterance`")
    utterances, seconds = header.get("utterances"), header.get("seconds")
    if not (
        isinstance(utterances, list) and all(isinstance(name, str) for name in utterances)
        and isinstance(seconds, list) and all(type(value) in (int, float) for value in seconds)
        and all(math.isfinite(value) and value > 0 for value in seconds)
        and len(utterances) == len(seconds) and isinstance(header.get("teacher"), str)
        and stored.ndim == 3 and stored.is_floating_point() and stored.numel() > 0
        and owner.shape == stored.shape[:1] and owner.dtype in _WHOLE
        and int(owner.min()) >= 0 and int(owner.max()) < len(utterances)
        and bool((owner.diff() >= 0).all())
    ):  # fmt: skip
        raise SkillError(f"{path}: activations whose states, utterances and seconds do not fit")
    states = list(stored.unbind(1))
    names = [f"{header['teacher']}:{layer}" for layer in range(len(states))]
    return LayerStates(states, names, [0] * len(states), owner, utterances, seconds)


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header; files of others have no header."""
    from safetensors.torch import load_file

    if "skill" in read_metadata(path):
        return read_tensors(path)
    return load_file(path), {}


def _layers(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    cubes = [name for name, tensor in tensors.items() if tensor.ndim == 3]
    if len(cubes) == 1 and (cubes[0] == "states" or len(tensors) == 1):
        return {str(layer): state for layer, state in enumerate(tensors[cubes[0]])}
    flat = {name: tensors[name] for name in sorted(tensors, key=_natural)}
    lengths = {tensor.shape[0] for tensor in flat.values() if tensor.ndim == 2}
    if not flat or len(lengths) != 1 or any(tensor.ndim != 2 for tensor in flat.values()):
        raise SkillError(
            f"{path}: holds neither one tensor [layers, frames, width] nor tensors [frames, width] "
            "of one length, one for each layer"
        )
    return flat


def _natural(name: str) -> list[tuple[bool, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]
