"""Typed view of `params.yaml`: every number that changes a result, checked before a job starts.

One frozen model per section. Students are written briefly (a method, teachers, what differs from
the defaults, lists where a sweep is meant) and are expanded and resolved by
`skill.config.students`: each has the whole of its sections in the end, so that a rule's `params`
are exactly what its program receives (`skill.config.jobs`). Imports no torch: the Snakefile imports
this."""

import re
from typing import Any, Literal

from pydantic import Field, model_validator

from skill.config.methods import Method
from skill.config.pretraining import Pretraining, check_heads
from skill.config.training import Stage1, Stage2
from skill.config.types import (
    Blocks,
    Fraction,
    Name,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
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
        check_heads(self.width, self.heads)
        return self


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
