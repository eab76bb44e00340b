"""What an encoder looks like, layer by layer."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from reprlib import repr as shown
from typing import Any, Literal, TypeVar, get_args

Family = Literal["wav2vec2", "hubert", "wavlm"]
Value = TypeVar("Value")
_LARGEST = 1 << 20  # of any width or kernel: far beyond any model, and memory still counts it
_MOST_LAYERS = 512


@dataclass(frozen=True)
class EncoderConfig:
    """The architecture, explicit in every layer.

    `heads[i]` lists the heads that block i still has, by their number in the unpruned model:
    WavLM's position bias belongs to numbered heads. `conv_full_width` is the number of channels
    that the projection's layer norm divides by, whatever number is left. `conv_masked` says that
    the projection carries what pruned channels leave behind (see `FeatureProjection`).
    """

    family: Family
    width: int
    conv_channels: tuple[int, ...]
    conv_full_width: int
    heads: tuple[tuple[int, ...], ...]
    total_heads: int
    ffn: tuple[int, ...]
    conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    conv_norm: Literal["group", "layer"] = "group"
    conv_masked: bool = False
    projection_norm: bool = True
    pos_conv_kernel: int = 128
    pos_conv_groups: int = 16
    pre_norm: bool = False
    relative_buckets: int = 0
    relative_distance: int = 0
    normalize_waveform: bool = False
    layer_norm_eps: float = 1e-5
    projection_dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    hidden_dropout: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                nested = tuple(tuple(v) if isinstance(v, list) else v for v in value)
                object.__setattr__(self, field.name, nested)
        self._check_values()
        self._check_fit()

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return math.prod(self.conv_strides)

    @property
    def receptive_field(self) -> int:
        """Samples that a frame is made of; the first frame is centred on half of them."""
        field, hop = 1, 1
        for kernel, stride in zip(self.conv_kernels, self.conv_strides, strict=True):
            field, hop = field + (kernel - 1) * hop, hop * stride
        return field

    def _check_values(self) -> None:
        """Types and ranges, whoever wrote them."""
        for name in ("conv_channels", "conv_kernels", "conv_strides", "ffn"):
            values, least = getattr(self, name), int(name != "ffn")
            if not isinstance(values, tuple) or not 0 < len(values) <= _MOST_LAYERS:
                raise ValueError(f"{name} is no list of 1 to {_MOST_LAYERS} layers")
            for value in values:
                _check_number(name, value, least)
        for name in ("width", "conv_full_width", "total_heads", "pos_conv_kernel",
                     "pos_conv_groups"):  # fmt: skip
            _check_number(name, getattr(self, name), 1)
        for name in ("relative_buckets", "relative_distance"):
            _check_number(name, getattr(self, name), 0)
        for name in ("conv_bias", "conv_masked", "projection_norm", "pre_norm",
                     "normalize_waveform"):  # fmt: skip
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {shown(getattr(self, name))}, neither true nor false")
        for name in ("projection_dropout", "attention_dropout", "activation_dropout",
                     "hidden_dropout", "layer_norm_eps"):  # fmt: skip
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value < 1:
                raise ValueError(f"{name} is {shown(value)}, no number from 0 to below 1")
        if self.family not in get_args(Family):
            raise ValueError(
                f"family is {shown(self.family)}, none of {', '.join(get_args(Family))}"
            )
        if self.conv_norm not in ("group", "layer"):
            raise ValueError(f"conv_norm is {shown(self.conv_norm)}, neither group nor layer")

    def _check_fit(self) -> None:
        """What one value says of another."""
        if not len(self.conv_channels) == len(self.conv_kernels) == len(self.conv_strides):
            raise ValueError("conv_channels, conv_kernels and conv_strides differ in length")
        if not isinstance(self.heads, tuple) or len(self.heads) != len(self.ffn):
            raise ValueError("heads and ffn need one entry per block, and at least one block")
        for numbers in self.heads:
            if not isinstance(numbers, tuple) or any(type(head) is not int for head in numbers):
                raise ValueError(f"heads has {shown(numbers)}, no list of numbers")
            if len(set(numbers)) < len(numbers) or any(
                not 0 <= head < self.total_heads for head in numbers
            ):
                raise ValueError(
                    f"heads has {shown(numbers)}, not numbers below {self.total_heads}, each once"
                )
        if self.width % self.total_heads:
            raise ValueError(f"width {self.width} is no multiple of {self.total_heads} heads")
        if self.width % self.pos_conv_groups:
            raise ValueError(f"width {self.width} is no multiple of {self.pos_conv_groups} groups")
        if self.conv_full_width < self.conv_channels[-1] or (
            self.conv_full_width > self.conv_channels[-1] and not self.conv_masked
        ):
            raise ValueError(
                f"conv_full_width is {self.conv_full_width}, conv_channels end with "
                f"{self.conv_channels[-1]}"
            )
        if self.family != "wavlm":
            if self.relative_buckets:
                raise ValueError("relative_buckets belongs to the family wavlm")
        elif self.relative_buckets < 4 or self.relative_distance <= self.relative_buckets // 4:
            raise ValueError(
                f"relative_buckets {self.relative_buckets} and relative_distance "
                f"{self.relative_distance} do not fit: 4 or more, and more than a quarter of them"
            )

    @property
    def num_blocks(self) -> int:
        """N; the model has N + 1 states."""
        return len(self.heads)

    @property
    def head_width(self) -> int:
        """Dimensions of one head."""
        return self.width // self.total_heads

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form that `from_dict` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "EncoderConfig":
        """Read `to_dict`'s form. An unknown or missing key is a `ValueError` that names it."""
        if not isinstance(values, Mapping):
            raise ValueError(f"no encoder configuration but {type(values).__name__}")
        known = {field.name for field in fields(cls)}
        if unknown := sorted({str(key) for key in values} - known):
            raise ValueError(
                f"unknown keys in the encoder configuration: {', '.join(unknown[:10])}"
            )
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"encoder configuration: {error}") from error

    @classmethod
    def uniform(
        cls,
        family: Family,
        *,
        width: int,
        blocks: int,
        heads: int,
        ffn: int,
        conv: int = 512,
        **others: Any,
    ) -> "EncoderConfig":
        """An unpruned model: the same numbers in every layer."""
        if family == "wavlm":
            others = {"relative_buckets": 320, "relative_distance": 800} | others
        return cls(
            family=family,
            width=width,
            conv_channels=(conv,) * 7,
            conv_full_width=conv,
            heads=per_block(all_heads(heads), blocks),
            total_heads=heads,
            ffn=per_block(ffn, blocks),
            **others,
        )

    @classmethod
    def base(cls, family: Family) -> "EncoderConfig":
        """The published Base size: 12 blocks of width 768."""
        return cls.uniform(family, width=768, blocks=12, heads=12, ffn=3072)

    @classmethod
    def large(cls, family: Family) -> "EncoderConfig":
        """The published Large size: 24 pre-norm blocks of width 1024, normalised waveforms."""
        return cls.uniform(
            family,
            width=1024,
            blocks=24,
            heads=16,
            ffn=4096,
            conv_norm="layer",
            conv_bias=family != "wavlm",
            pre_norm=True,
            normalize_waveform=True,
        )


def all_heads(count: int) -> tuple[int, ...]:
    """The numbers of an unpruned block's heads; no sensible count is a `ValueError`."""
    _check_number("heads", count, 0)
    return tuple(range(count))


def per_block(value: Value, blocks: int) -> tuple[Value, ...]:
    """The same in every block; no sensible number of blocks is a `ValueError`."""
    if type(blocks) is not int or not 0 < blocks <= _MOST_LAYERS:
        raise ValueError(f"{shown(blocks)} blocks, no whole number from 1 to {_MOST_LAYERS}")
    return (value,) * blocks


def _check_number(name: str, value: Any, least: int) -> None:
    if type(value) is not int or not least <= value <= _LARGEST:
        raise ValueError(f"{name} has {shown(value)}, no whole number from {least} to {_LARGEST}")
