"""Typed view of `params.yaml`: every number that changes a result, checked before a job starts.

One frozen model per section. Students are written briefly (a method, teachers, what differs from
the defaults, lists where a sweep is meant) and are expanded and resolved by
`skill.config.students`: each has the whole of its sections in the end, so that a rule's `params`
are exactly what its program receives (`skill.config.jobs`). Imports no torch: the Snakefile imports
this."""

import re
from typing import Any, Literal, TypeVar

from pydantic import Field, model_validator

from skill.config.methods import Method
from skill.config.types import (
    Blocks,
    Fraction,
    Name,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Seconds,
    Section,
    StrictBool,
    Width,
)

Kind = Literal[
    "queen", "asterisk", "hedgewars", "folder", "synthetic", "spoken_commands",
    "spoken_requests", "spoken_moods", "librispeech",
    "speech_commands", "quesst14", "voxceleb1", "libri2mix", "fluent_speech_commands",
    "audio_snips", "iemocap",
]  # fmt: skip
_CONVERTED = {
    "queen", "asterisk", "hedgewars", "folder", "synthetic", "spoken_commands", "spoken_requests",
    "spoken_moods",
}  # fmt: skip


class Corpus(Section):
    """Where audio comes from. `parts`: which of the corpus's own sets; empty: all of them."""

    kind: Kind
    """Which corpus; `folder` is a folder of audio below SKILL_CORPORA."""
    parts: tuple[str, ...] = ()
    """Which of the corpus's own sets; empty: all of them."""
    speakers: PositiveInt = 8
    """Of synthetic corpora."""
    sentences: PositiveInt = 24
    """Of synthetic corpora; every speaker says every sentence."""

    @property
    def stored(self) -> bool:
        """Whether the audio is converted into one file; otherwise it stays in SKILL_CORPORA."""
        return self.kind in _CONVERTED


class Unlabelled(Section):
    """The audio for calibration, distillation and pretraining."""

    corpora: tuple[Name, ...] = Field(min_length=1)
    """Names of `corpora`."""
    min_seconds: Seconds = 1.0
    """Shorter utterances are left out."""
    max_seconds: Seconds = 15.625
    """Longer utterances are left out."""

    @model_validator(mode="after")
    def _not_empty(self) -> "Unlabelled":
        if self.min_seconds > self.max_seconds:
            raise ValueError(
                f"min_seconds {self.min_seconds:g} is more than max_seconds {self.max_seconds:g}"
            )
        return self


class RandomEncoder(Section):
    """A teacher of random weights, for tests."""

    family: Literal["wav2vec2", "hubert", "wavlm"]
    """Architecture."""
    blocks: Blocks = 2
    """Transformer blocks."""
    width: Width = 32
    """Of the states; a multiple of `heads`."""
    heads: Width = 2
    """Attention heads of each block."""
    ffn: Width = 64
    """Units of each feed-forward layer."""
    conv_channels: Width = 16
    """Channels of each convolution."""
    seed: NonNegativeInt = 0
    """Of the weights."""

    @model_validator(mode="after")
    def _divisible(self) -> "RandomEncoder":
        return _check_heads(self)


class Teacher(Section):
    """An encoder to learn from: a file or folder, a model of the hub, or random weights."""

    source: str | None = None
    """A file or a folder, of this project or of `transformers`."""
    hub: str | None = None
    """A model's name on the hub."""
    revision: str | None = None
    """The 40 digits of the hub's commit."""
    sha256: str | None = None
    """Of the file; of a folder, see docs/how-to-teacher.md. Anything else is refused."""
    random: RandomEncoder | None = None
    """Random weights, for tests."""
    retrain: StrictBool = False
    """Make it by `pretraining` instead of taking the stored weights."""

    @model_validator(mode="after")
    def _one_origin(self) -> "Teacher":
        if sum(origin is not None for origin in (self.source, self.hub, self.random)) != 1:
            raise ValueError("give exactly one of source, hub and random")
        if (self.hub is None) != (self.revision is None):
            raise ValueError("hub and revision belong together")
        if self.hub is not None and not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", self.hub, re.ASCII):
            raise ValueError("hub is not the name of a model, OWNER/NAME")
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError("sha256 is not 64 hexadecimal digits (0-9, a-f)")
        if self.revision is not None and not re.fullmatch("[0-9a-f]{40}", self.revision):
            raise ValueError("revision is not the 40 digits of a commit: a branch or tag can move")
        return self


class Training(Section):
    """One run of the training loop (`skill.training.loop`)."""

    steps: NonNegativeInt
    """Updates."""
    warmup: NonNegativeInt
    """Steps over which the learning rates rise linearly; they fall linearly to 0 afterwards."""
    learning_rate: NonNegativeFloat
    """Of the weights, at its highest."""
    batch_seconds: Seconds = 40.0
    """Audio of one step."""
    micro_seconds: Seconds = 40.0
    """Audio of one forward and backward pass, at most."""
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    """Of forward and backward passes; weights stay in float32. auto: bf16 where the processor has
    kernels for it that compute this model right, else float32."""
    tf32: StrictBool = False
    """On a GPU: products of float32 numbers with mantissas of 10 bits."""
    clip: PositiveFloat = 10.0
    """Largest norm of a step's gradient."""
    fixed_order: StrictBool = False
    """The same batches in the same order in every epoch, as in DPHuBERT's code."""
    log_every: PositiveInt = 10
    """Steps between two rows of the curve."""
    validate_every: PositiveInt = 250
    """Steps between two looks at the development set."""
    max_bad_steps: PositiveInt = 10
    """Steps in a row without a finite loss or gradient that end the run."""

    @model_validator(mode="after")
    def _within(self) -> "Training":
        if self.warmup > self.steps:
            raise ValueError(f"warmup {self.warmup} is longer than steps {self.steps}")
        if self.validate_every % self.log_every:
            raise ValueError(
                f"validate_every {self.validate_every} is no multiple of log_every {self.log_every}"
            )
        return self


class Distilling(Training):
    """What both stages have."""

    dropout: Probability | None = None
    """Of the student's projection, attention and blocks; none: what it starts with, which is the
    teacher's own in stage 1 and stage 1's in stage 2."""
    compile: StrictBool = False
    """Compile the blocks of student and teachers (`torch.compile`): slow to start."""


class Stage1(Distilling):
    """Pruning and distillation at once."""

    gate_learning_rate: NonNegativeFloat = 0.02
    """Of log α."""
    multiplier_learning_rate: NonNegativeFloat | None = None
    """Of the λ; none: the gates'. In a short run λ as fast as the gates overshoots the target."""
    sparsity_warmup: NonNegativeInt = 0
    """Steps over which the target sparsity rises linearly from 0."""

    @model_validator(mode="after")
    def _target_reached(self) -> "Stage1":
        if self.sparsity_warmup > self.steps:
            raise ValueError(
                f"sparsity_warmup {self.sparsity_warmup} is longer than steps {self.steps}"
            )
        return self


class Stage2(Distilling):
    """Distillation of the pruned student; 0 steps leave it as it is."""


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
        return _check_heads(self)


Sized = TypeVar("Sized", "RandomEncoder", "Pretraining")


def _check_heads(section: Sized) -> Sized:
    if section.width % section.heads:
        raise ValueError(f"width {section.width} is no multiple of heads {section.heads}")
    return section


class Activations(Section):
    """The calibration set: states of at most `max_frames` frames from `seconds` of audio."""

    seconds: Seconds
    """Audio of the calibration set."""
    max_frames: PositiveInt
    """States that are kept, at most."""


class Similarity(Section):
    """Centred kernel alignment between layers."""

    estimator: Literal["unbiased", "biased", "minibatch"] = "unbiased"
    """Of HSIC (docs/method.md); minibatch: the mean of unbiased ones of parts of the set."""
    kernel: Literal["linear", "rbf"] = "linear"
    """Of the compared features."""
    bandwidth: PositiveFloat = 0.8
    """Width of the rbf kernel, in median distances between frames."""
    standardize: StrictBool = False
    """Each dimension to mean 0 and deviation 1 first."""
    max_frames: PositiveInt | None = None
    """Of the calibration set; none: all."""


class Clustering(Section):
    """Hierarchical clustering of layers."""

    num_clusters: PositiveInt | Literal["auto"]
    """auto: the number with the highest mean silhouette."""
    linkage: Literal["average", "complete", "single", "ward"] = "average"
    """How far two clusters are apart: on average, at most, at least, or by Ward's criterion."""
    contiguous: StrictBool = False
    """Only neighbouring layers of a teacher may be merged."""
    state0: Literal["clustered", "own", "omitted"] = "clustered"
    """Role of the first block's input: one of the layers, a cluster of its own, or no target."""
    shuffle: NonNegativeInt | None = None
    """Seed of a permutation of the layers: clusters of the same sizes, at random."""


class Studies(Section):
    """How groups depend on the calibration audio, the linkage and the kernel (`studies`)."""

    resamples: PositiveInt = 100
    """Sets of utterances that are drawn for each setting."""
    seconds: tuple[Seconds, ...] = (10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
    """Amounts of calibration audio; all of it comes on top."""


class StudentEntry(Section):
    """A student as it is written; lists expand to one student each (`skill.config.students`)."""

    method: Name
    """Name of one of `methods`."""
    teachers: tuple[Name, ...] = Field(min_length=1)
    """Names of `teachers`; the student starts as the first."""
    sparsity: Fraction | tuple[Fraction, ...] | None = None
    """Share of the parameters that stage 1 removes; a list gives a student for each."""
    seed: NonNegativeInt | None = None
    """Default: the file's `seed`."""
    seeds: tuple[NonNegativeInt, ...] = ()
    """A student for each."""
    num_clusters: tuple[PositiveInt, ...] = ()
    """A student for each number of clusters."""
    calibration_frames: tuple[PositiveInt, ...] = ()
    """Sizes of the calibration set that its clusters come from (`similarity.max_frames`)."""
    compare_with: Name | None = None
    """The student that its results are compared with: a baseline of another method, or what it is
    an ablation of. Of a sweep: the one of the same values, where there is one."""
    method_overrides: dict[str, Any] = Field({})
    """Keys of the method that differ, as `clustering` and the others are of their sections."""
    clustering: dict[str, Any] = Field({})
    """Keys of `clustering` that differ."""
    similarity: dict[str, Any] = Field({})
    """Keys of `similarity` that differ."""
    stage1: dict[str, Any] = Field({})
    """Keys of `stage1` that differ."""
    stage2: dict[str, Any] = Field({})
    """Keys of `stage2` that differ."""


class Student(Section):
    """A student with the whole of its sections. `base` is its name without the seed."""

    name: Name
    base: Name
    method: Name
    definition: Method
    teachers: tuple[Name, ...]
    sparsity: Fraction | None
    seed: NonNegativeInt
    similarity: Similarity | None
    clustering: Clustering | None
    stage1: Stage1
    stage2: Stage2
    compare_with: Name | None = None
    """Without the seed."""


class Upstreams(Section):
    """What is evaluated beside the students."""

    teachers: StrictBool = True
    """The teachers."""
    fbank: StrictBool = True
    """Log-mel features."""


class Superb(Section):
    """The evaluation; a task's keys replace those of `skill.config.tasks.PROTOCOL`."""

    upstreams: Upstreams = Upstreams()
    tasks: dict[str, dict[str, Any]]


class Paper(Section):
    """Tables and figures."""

    bootstrap: PositiveInt = 1000
    """Resamples behind every comparison; those of single scores are the tasks' `bootstrap`."""


class Params(Section):
    """The whole of `params.yaml`, students expanded."""

    seed: NonNegativeInt
    corpora: dict[Name, Corpus] = Field(min_length=1)
    unlabelled: Unlabelled
    teachers: dict[Name, Teacher] = Field(min_length=1)
    pretraining: dict[Name, Pretraining] = Field({})
    activations: Activations
    similarity: Similarity = Similarity()
    clustering: Clustering
    studies: Studies = Studies()
    stage1: Stage1
    stage2: Stage2
    methods: dict[Name, Method] = Field(min_length=1)
    students: dict[Name, Student]
    superb: Superb
    paper: Paper = Paper()
