"""What an encoder looks like, layer by layer."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Family = Literal["wav2vec2", "hubert", "wavlm"]


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
        if not len(self.conv_channels) == len(self.conv_kernels) == len(self.conv_strides):
            raise ValueError("conv_channels, conv_kernels and conv_strides differ in length")
        if len(self.heads) != len(self.ffn) or not self.heads:
            raise ValueError("heads and ffn need one entry per block, and at least one block")
        if self.width % self.total_heads:
            raise ValueError(f"width {self.width} is no multiple of {self.total_heads} heads")
        if self.relative_buckets and self.family != "wavlm":
            raise ValueError("relative_buckets belongs to the family wavlm")

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
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown keys in the encoder configuration: {', '.join(unknown)}")
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
            heads=(tuple(range(heads)),) * blocks,
            total_heads=heads,
            ffn=(ffn,) * blocks,
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
