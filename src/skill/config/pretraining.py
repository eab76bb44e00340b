"""Sections of `params.yaml` for teachers that are pretrained here."""

from typing import Literal

from pydantic import Field, model_validator

from skill.config.training import Training
from skill.config.types import (
    Blocks,
    Fraction,
    Name,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
    Width,
)


def check_heads(width: int, heads: int) -> None:
    """Raises ValueError: the heads do not divide the width."""
    if width % heads:
        raise ValueError(f"width {width} is no multiple of heads {heads}")


class PretrainingTarget(Section):
    """What one block of a teacher in the making predicts of every frame, masked or seen.

    Written as a value: `{features: mfcc, clusters: 100}`, `{features: spectrum, at: 3}`,
    `{features: model, layer: 9, clusters: 250}`,
    `{encoder: whisper-tiny.en, layer: 4, clusters: 500}`.
    """

    features: Literal["spectrum", "mfcc", "model"] | None = None
    """model: the states of the model that the rounds before made."""
    encoder: Name | None = None
    """A name in data/encoders.csv, whose states are the features."""
    layer: NonNegativeInt | None = None
    """Of the model or encoder; 0 is the input of its first block."""
    clusters: PositiveInt | None = None
    """Of k-means, to classify; none: the features themselves, by regression."""
    at: PositiveInt | None = None
    """The block that predicts; none: the last."""
    weight: PositiveFloat = 1.0
    """Of its loss."""

    @model_validator(mode="after")
    def _one_source(self) -> "PretrainingTarget":
        if (self.features is None) == (self.encoder is None):
            raise ValueError("give exactly one of features and encoder")
        layered = self.encoder is not None or self.features == "model"
        if layered != (self.layer is not None):
            raise ValueError("layer is needed with an encoder or the model, and only there")
        if self.features == "mfcc" and self.clusters is None:
            raise ValueError("mfcc need clusters")
        if self.features == "spectrum" and self.clusters is not None:
            raise ValueError("the spectrum has no clusters: it is predicted by regression")
        return self


class PretrainingRound(Training):
    """One training by masked prediction of its targets."""

    targets: tuple[PretrainingTarget, ...] = Field(min_length=1)
    """What is predicted; several losses are added up."""


class PretrainingStart(Section):
    """Weights to start from: a teacher file that comes with the project."""

    source: str
    """Below the working directory, or beside the package."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Of the file; another one is refused."""


class Pretraining(Section):
    """How one sample teacher is made (`skill.teachers.pretraining`): spectrum, then masked
    prediction."""

    family: Literal["wav2vec2", "hubert", "wavlm"]
    """Architecture."""
    blocks: Blocks = 12
    """Transformer blocks."""
    width: Width = 160
    """Of the states; a multiple of `heads`."""
    heads: Width = 5
    """Attention heads of each block."""
    ffn: Width = 640
    """Units of each feed-forward layer."""
    bands: Width = 64
    """Of the filter bank that the convolutions start as (`skill.teachers.filterbank_init`)."""
    levels: PositiveInt = 6
    """Of each band's amplitude."""
    pos_conv_kernel: PositiveInt = 128
    """Frames that the positional convolution sees."""
    dropout: NonNegativeFloat = 0.1
    """Of attention, blocks and features."""
    seed: NonNegativeInt = 0
    """Of weights, masks and batches."""
    languages: tuple[str, ...] = ()
    """Of the utterances to learn from; none: all."""
    speeds: tuple[PositiveFloat, ...] = ()
    """Copies of the training audio at other speeds; pitch and formants move along."""
    mixing: NonNegativeFloat = 0.0
    """Share of the utterances that another is mixed into, as in WavLM."""
    noise: NonNegativeFloat = 0.0
    """Share of the utterances that coloured noise is added to."""
    mask_probability: Fraction = 0.65
    """Share of the frames that are masked, as in HuBERT, before overlaps."""
    start: PretrainingStart | None = None
    """Weights to start from; none: a filter bank and random blocks."""
    spectrum: Training | None = None
    """Regression of the spectrum by the convolutions, before the first round."""
    rounds: tuple[PretrainingRound, ...] = Field(min_length=1)
    """Masked prediction, one training after the other."""

    @model_validator(mode="after")
    def _inside(self) -> "Pretraining":
        for number, stage in enumerate(self.rounds, start=1):
            for target in stage.targets:
                model_layer = target.layer if target.features == "model" else None
                for key, layer in (("layer", model_layer), ("at", target.at)):
                    if layer is not None and layer > self.blocks:
                        raise ValueError(
                            f"round {number}: {key} {layer} of a model of {self.blocks} blocks"
                        )
                if number == 1 and target.features == "model":
                    raise ValueError("round 1: there is no model yet to take features from")
        check_heads(self.width, self.heads)
        return self
