"""The ten tasks of SUPERB as data: what each head, loss, batch, schedule and metric is.

The values are the protocol's (s3prl's `downstream/`); `make_task` replaces some of them, as
`params.yaml` says, and knows which may be replaced. Imports no torch.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from skill.config.types import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seconds,
    Section,
    StrictBool,
    Units,
    parse,
)
from skill.utils.errors import SkillError

Kind = Literal["ctc", "labels", "verification", "diarization", "search", "frames", "abx"]
Order = Literal["shuffled", "buckets", "windows", "balanced"]
CHOSEN_ON_TEST = ("verification", "diarization")  # kinds to which `protocol` applies
UNLIMITED = 1e9  # seconds; finite, so that it survives JSON


class Task(Section):
    """One task. `selection` is the metric that chooses checkpoints and learning rates on dev."""

    name: str
    title: str
    kind: Kind
    corpora: tuple[str, ...]
    """Names of `corpora`."""
    metrics: tuple[str, ...]
    selection: str
    """The metric that chooses checkpoints and learning rates on the development set."""
    learning_rates: tuple[PositiveFloat, ...] = (1e-3, 5e-4, 1e-4, 5e-5)
    """Each is tried; the best on the development set is tested."""
    vocabulary: Literal["none", "phones", "letters", "slots"] = "none"
    hidden: Units = 256
    """Width of the first linear layer, of the x-vector's layers."""
    pooled: Units = 0
    """Width of the x-vector's last layer before the statistics."""
    recurrent: Units = 0
    """Units of each LSTM (per direction); 0: no LSTM."""
    recurrent_layers: Annotated[int, Field(strict=True, ge=0, le=100)] = 0
    """LSTM layers."""
    dropout: NonNegativeFloat = 0.0
    """Of the head."""
    weight_decay: NonNegativeFloat = 0.0
    """Of the head's weights."""
    head_seeds: PositiveInt = 1
    """Heads that are trained, each with first weights and batches of its own."""
    batch: PositiveInt = 32
    """Utterances of one micro-batch."""
    accumulate: PositiveInt = 1
    """Micro-batches of one step."""
    steps: NonNegativeInt = 200_000
    """Updates."""
    eval_every: NonNegativeInt = 5_000
    """Steps between two looks at the development set."""
    clip: PositiveFloat = 1.0
    """Largest norm of a step's gradient."""
    order: Order = "shuffled"
    """How utterances are put into batches."""
    spec_augment: StrictBool = False
    """Mask bands and frames of the features in training."""
    crop_seconds: Seconds = UNLIMITED
    """Longest training excerpt of SID, ASV and KS's noises."""
    crops: NonNegativeInt = 0
    """Of so many seeded excerpts one is drawn each time; 0: always a new one."""
    folds: PositiveInt = 1
    """See FOLDS."""
    fold_mean: StrictBool = False
    """Mean of the folds' metrics, one learning rate for all of them."""
    chunk_frames: NonNegativeInt = 0
    """SD: frames after which the LSTM starts anew; 0: never."""
    train_seconds: Seconds = UNLIMITED
    """Labelled audio for training, at most."""
    dev_seconds: Seconds = UNLIMITED
    """The same of the development set."""
    test_seconds: Seconds = UNLIMITED
    """The same of the test set."""
    cache_gib: NonNegativeFloat = 1.0
    """Half-precision states kept in memory."""
    batch_seconds: Seconds = 10.0
    """Padded audio of one pass through the upstream."""
    precision: Literal["auto", "float32", "bf16"] = "float32"
    """Of the upstream's forward pass; auto as in the stages."""
    protocol: Literal["superb", "clean"] = "clean"
    """Superb: ASV and SD choose on the test set."""
    fbank_cmvn: StrictBool = True
    """FBANK: mean and variance normalised per utterance."""
    bootstrap: PositiveInt = 1000
    """Resamples behind the interval of a score."""
    min_clips: NonNegativeInt = 0
    """A speaker needs that many clips, a phrase that many voices."""
    max_clips: PositiveInt = 1_000_000
    """Of a speaker, chosen by hash."""
    prior: Fraction = 0.0008
    """QbE: of a document matching a query."""
    table: Literal["whole", "english"] = "whole"
    """QbE: QUESST's queries and documents that count."""


_LINEAR_RATES = (1e-2, 1e-3, 5e-4, 1e-4, 5e-5)

PROTOCOL: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="pr",
            title="phoneme recognition",
            kind="ctc",
            corpora=("librispeech",),
            metrics=("per",),
            selection="per",
            learning_rates=(1e-2, 1e-3, 5e-4),
            vocabulary="phones",
            batch=16,
            accumulate=2,
            steps=100_000,
            eval_every=1_000,
            order="windows",
        ),
        Task(
            name="asr",
            title="speech recognition",
            kind="ctc",
            corpora=("librispeech",),
            metrics=("wer", "cer"),
            selection="wer",
            vocabulary="letters",
            hidden=1024,
            recurrent=1024,
            recurrent_layers=2,
            dropout=0.2,
            eval_every=2_000,
            order="buckets",
            spec_augment=True,
        ),
        Task(
            name="ks",
            title="keyword spotting",
            kind="labels",
            corpora=("speech_commands",),
            metrics=("accuracy",),
            selection="accuracy",
            fbank_cmvn=False,
            learning_rates=_LINEAR_RATES,
            order="balanced",
            folds=3,  # of unseen voices, where the corpus has no split of its own
            crop_seconds=1.0,
            crops=100,
        ),
        Task(
            name="qbe",
            title="query by example",
            kind="search",
            corpora=("quesst14",),
            metrics=("mtwv",),
            selection="mtwv",
            steps=0,
            eval_every=0,
        ),
        Task(
            name="sid",
            title="speaker identification",
            kind="labels",
            corpora=("voxceleb1",),
            metrics=("accuracy",),
            selection="accuracy",
            fbank_cmvn=False,
            learning_rates=(1e-1, 1e-2, 1e-3),
            batch=8,
            accumulate=4,
            crop_seconds=8.0,
            crops=4,
        ),
        Task(
            name="asv",
            title="speaker verification",
            kind="verification",
            corpora=("voxceleb1",),
            metrics=("eer",),
            selection="eer",
            hidden=512,
            pooled=1500,
            weight_decay=0.01,
            batch=10,
            accumulate=5,
            eval_every=10_000,
            clip=1e3,
            crop_seconds=8.0,
            protocol="superb",
        ),
        Task(
            name="sd",
            title="speaker diarization",
            kind="diarization",
            corpora=("libri2mix",),
            metrics=("der",),
            selection="frame_accuracy",
            recurrent=512,
            recurrent_layers=1,
            batch=8,
            accumulate=4,
            steps=30_000,
            eval_every=500,
            chunk_frames=2000,
            protocol="superb",
        ),
        Task(
            name="ic",
            title="intent classification",
            kind="labels",
            corpora=("fluent_speech_commands",),
            metrics=("accuracy",),
            selection="accuracy",
            fbank_cmvn=False,
            learning_rates=_LINEAR_RATES,
        ),
        Task(
            name="sf",
            title="slot filling",
            kind="ctc",
            corpora=("audio_snips",),
            metrics=("slot_f1", "slot_cer"),
            selection="slot_f1",
            vocabulary="slots",
            hidden=1024,
            recurrent=1024,
            recurrent_layers=2,
            dropout=0.2,
            eval_every=2_000,
            order="windows",
            spec_augment=True,
        ),
        Task(
            name="er",
            title="emotion recognition",
            kind="labels",
            corpora=("iemocap",),
            metrics=("accuracy",),
            selection="accuracy",
            fbank_cmvn=False,
            learning_rates=_LINEAR_RATES,
            batch=4,
            accumulate=8,
            steps=30_000,
            eval_every=1_000,
            folds=5,
            fold_mean=True,
        ),
        # Not SUPERB's: they rest on the forced alignment of the sample corpora.
        Task(
            name="keywords",
            title="words cut from sentences",
            kind="labels",
            corpora=(),
            metrics=("accuracy",),
            selection="accuracy",
            fbank_cmvn=False,
            learning_rates=_LINEAR_RATES,
        ),
        Task(
            name="phones",
            title="phones by a linear probe on frames",
            kind="frames",
            corpora=(),
            metrics=("frame_accuracy",),
            selection="frame_accuracy",
            steps=0,
            eval_every=0,
        ),
        Task(
            name="abx",
            title="ABX on triphones",
            kind="abx",
            corpora=(),
            metrics=("abx_within", "abx_across"),
            selection="abx_across",
            steps=0,
            eval_every=0,
        ),
    )
}
PROTOCOL |= {
    f"{name}_all": PROTOCOL[name].model_copy(
        update={
            "name": f"{name}_all",
            "title": f"{PROTOCOL[name].title}, more labels",
            "corpora": (),
        }
    )
    for name in ("pr", "asr")
}  # a second condition beside the first; not SUPERB's

UNTRAINED = {"search", "frames", "abx"}
"""Kinds of tasks that train no head."""

OFFICIAL_CORPORA = {name for task in PROTOCOL.values() for name in task.corpora}
SUPERB_PARTS = {"train-clean-100", "dev-clean", "test-clean"}
"""Of LibriSpeech, for PR and ASR."""

FOLDS = {"sid": (1, 2), "ks": (3, 20), "er": (1, 5)}
"""Fewest and most folds of a task, 1 of the others. SID: the second swaps dev and test. KS: test
and dev voices of each are strangers to its training. ER: IEMOCAP's sessions."""

FIXED = {"name", "title", "kind", "metrics", "vocabulary"}
_FREE = {"learning_rates", "head_seeds", "batch_seconds", "cache_gib", "precision", "protocol"}
_FREE |= {"bootstrap"}


UNCONFIRMED = {
    "qbe": "MTWV was never compared with QUESST 2014's own scorer, and that published values are "
    "of the whole table is inferred"
}
"""Tasks whose numbers nobody has compared with the official scorer, and why."""


def official(task: Task) -> bool:
    """Whether a result may stand beside published ones (docs/superb.md says what was compared)."""
    return has_protocol_values(task) and task.name not in UNCONFIRMED


def has_protocol_values(task: Task) -> bool:
    """Whether a task is SUPERB's, on its corpora.

    Free are the learning rates that are tried, how many heads a result is the mean of, whether ASV
    and SD choose on dev instead of test (`protocol`), excerpts that are always new (`crops: 0`),
    and what changes no more than rounding or resamples.
    """
    protocol = PROTOCOL[task.name]
    if not set(task.corpora) <= set(protocol.corpora):
        return False
    fixed = Task.model_fields.keys() - _FREE - {"corpora", "crops"}
    return task.crops in (0, protocol.crops) and all(
        getattr(task, key) == getattr(protocol, key) for key in fixed
    )


def make_task(name: str, settings: Mapping[str, Any]) -> Task:
    """The protocol's task with `settings` replaced.

    Raises:
        SkillError: the task or a setting is unknown, or a value is of a wrong type or range; the
            message has the key's path.
    """
    if name not in PROTOCOL:
        raise SkillError(f"superb.tasks.{name}: unknown task; there are {', '.join(PROTOCOL)}")
    for key in settings:
        if key in FIXED:
            raise SkillError(f"superb.tasks.{name}.{key}: belongs to the task and cannot be set")
    task = parse(Task, {**PROTOCOL[name].model_dump(), **settings}, f"superb.tasks.{name}")
    if not task.corpora:
        raise SkillError(f"superb.tasks.{name}.corpora: a task needs one")
    fewest, most = FOLDS.get(name, (1, 1))
    if not fewest <= task.folds <= most:
        allowed = str(most) if fewest == most else f"{fewest} to {most}"
        raise SkillError(f"superb.tasks.{name}.folds: {task.folds}, but {name} has {allowed}")
    if PROTOCOL[name].crop_seconds == UNLIMITED and {"crop_seconds", "crops"} & settings.keys():
        raise SkillError(f"superb.tasks.{name}: {name} hears whole utterances: it has no crops")
    choices = {PROTOCOL[name].selection, *task.metrics}
    if task.selection not in choices:
        raise SkillError(f"superb.tasks.{name}.selection: one of {', '.join(sorted(choices))}")
    if task.kind == "labels" and task.fbank_cmvn:
        raise SkillError(
            f"superb.tasks.{name}.fbank_cmvn: {name} classifies means over time, which are zero of "
            "features that are normalised per utterance"
        )
    if task.kind in UNTRAINED and task.head_seeds > 1:
        raise SkillError(f"superb.tasks.{name}.head_seeds: {name} trains no head")
    if task.kind not in UNTRAINED and not (
        0 < task.eval_every <= task.steps and task.learning_rates
    ):
        raise SkillError(
            f"superb.tasks.{name}: steps {task.steps}, eval_every {task.eval_every} and "
            f"learning_rates {list(task.learning_rates)} allow no training"
        )
    return task
