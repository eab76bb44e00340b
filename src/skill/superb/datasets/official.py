"""Examples of SUPERB's tasks from the manifests of their official corpora, by the protocol's rules.

LibriSpeech serves PR and ASR, where PR's words are looked up in s3prl's two lexicons. VoxCeleb1
serves SID (official split) and ASV (the speakers of the official trials are unseen in training).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from skill.config.tasks import Task
from skill.data.corpora.superb_files import required_files
from skill.data.corpora.superb_layouts import (
    KEYWORDS,
    SILENCE,
    UNKNOWN,
    verification_trials,
)
from skill.data.manifest import Utterance
from skill.superb.datasets.common import class_number, example_of, split, transcripts
from skill.superb.datasets.labelled import emotions, intents, slot_filling
from skill.superb.examples import (
    Example,
    Fold,
    Search,
    Trial,
    batch_order,
    hashed,
    limit_seconds,
    seeded_excerpt,
    with_crops,
)
from skill.superb.metrics import Turn, Unscored
from skill.superb.vocabulary import read_lexicon
from skill.utils.errors import SkillError

_HELD_OUT_SPEAKERS = 40  # for the dev trials of the `clean` protocol
_SHORTEST_TRAINING = 32_000  # samples without silences, ASV
_DEV_TRIALS = 20_000


def phones(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """PR: pronunciations from s3prl's two lexicons."""
    return transcripts(task, utterances, read_lexicon(required_files("pr", "librispeech")))


def keywords(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """KS: ten words, unknown and silence. Dev is drawn evenly over classes, as s3prl's loader."""
    names = (*KEYWORDS, UNKNOWN, SILENCE)
    examples = [
        (u.split, example_of(task, u, (class_number(u, names, u.text),))) for u in utterances
    ]
    fold = split(task, examples, labels=(names,))
    train, dev = (with_crops(p, task.crop_seconds, task.crops) for p in (fold.train, fold.dev))
    drawn = batch_order("balanced", dev, 1, epoch=0, seed=0)
    balanced = [dev[index] for batch in drawn for index in batch]
    excerpts = [e if e.crops is None else seeded_excerpt(e, n) for n, e in enumerate(balanced)]
    return [replace(fold, train=train, dev=excerpts)]


def identities(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """SID: the official split; the label is the number in the speaker's id."""
    names = tuple(sorted({u.speaker for u in utterances}))
    number = {name: index for index, name in enumerate(names)}
    examples = [(u.split, example_of(task, u, (number[u.speaker],))) for u in utterances]
    fold = split(task, examples, labels=(names,))
    return [replace(fold, train=with_crops(fold.train, task.crop_seconds, task.crops))]


def trials(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """ASV: the official trials; `superb` watches them while training, `clean` other speakers."""
    official = verification_trials()
    test_keys = {key for _, first, second in official for key in (first, second)}
    speakers = sorted({u.speaker for u in utterances if "/test/wav/" not in u.path})
    dev_speakers = set(
        sorted(speakers, key=hashed)[:_HELD_OUT_SPEAKERS] if task.protocol == "clean" else ()
    )
    names = tuple(speaker for speaker in speakers if speaker not in dev_speakers)
    number = {name: index for index, name in enumerate(names)}
    train, dev, test = [], [], []
    for u in utterances:
        if not u.text.isdecimal():
            raise SkillError(f"asv: {u.id}: the manifest does not say its length without silences")
        example = example_of(task, u, (number.get(u.speaker, -1),))
        example = replace(example, samples=int(u.text))
        if u.id in test_keys:
            test.append(example)
        elif u.speaker in dev_speakers:
            dev.append(example)
        elif u.speaker in number and example.samples > _SHORTEST_TRAINING:
            train.append(example)
    on_test = [Trial(same, a, b, a.partition("/")[0]) for same, a, b in official]
    training = limit_seconds(train, task.train_seconds)
    return [
        Fold(
            with_crops(training, task.crop_seconds, task.crops),
            dev or test,
            test,
            labels=(names,),
            trials={"dev": _random_trials(dev) if dev else on_test, "test": on_test},
        )
    ]


def _random_trials(examples: Sequence[Example]) -> list[Trial]:
    generator = np.random.default_rng(0)
    first, second = generator.integers(0, len(examples), (2, 50 * _DEV_TRIALS))
    pairs = [
        Trial(examples[a].cluster == examples[b].cluster, examples[a].id, examples[b].id,
              examples[a].cluster)
        for a, b in zip(first.tolist(), second.tolist(), strict=True) if a != b
    ]  # fmt: skip
    same = [trial for trial in pairs if trial.same][: _DEV_TRIALS // 2]
    return same + [trial for trial in pairs if not trial.same][: len(same)]


def diarization(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """SD: recordings of two speakers with the turns of the corpus."""
    examples = []
    for u in utterances:
        try:
            parts = [turn.rsplit(":", 2) for turn in u.text.split()]
            turns = tuple(Turn(speaker, float(start), float(end)) for speaker, start, end in parts)
        except ValueError:
            raise SkillError(f"sd: {u.id}: {u.text!r} are no `speaker:start:end`") from None
        speakers = sorted({str(turn.speaker) for turn in turns})
        if not 1 <= len(speakers) <= 2:
            raise SkillError(f"sd: {u.id}: {len(speakers)} speakers, not one or two")
        voices = "+".join(speakers)  # what intervals resample
        examples.append((u.split, replace(example_of(task, u, turns), cluster=voices)))
    return [split(task, examples)]


def search(task: Task, utterances: Sequence[Utterance]) -> Search:
    """QbE: English queries and documents are scored; with `table: whole`, all others count, too."""
    documents = [u for u in utterances if u.split == "train"]
    scored = [example_of(task, u, tuple(u.text.split())) for u in documents if u.language == "en"]
    foreign = Counter(name for u in documents if u.language != "en" for name in u.text.split())
    matched = {name for u in documents for name in u.text.split()}
    queries: dict[str, list[Example]] = {}
    unscored: dict[str, Unscored] = {}
    for part, seconds in (("dev", task.dev_seconds), ("test", task.test_seconds)):
        listed = [u for u in utterances if u.split == part]
        english = [example_of(task, u, u.text) for u in listed if u.language == "en"]
        queries[part] = limit_seconds(english, seconds)
        unscored[part] = Unscored(
            sum(u.language != "en" and u.text in matched for u in listed),
            len(documents) - len(scored),
            np.array([foreign[query.target] for query in queries[part]], dtype=np.int64),
        )
    if task.table == "english":
        unscored = {}
    return Search(limit_seconds(scored, task.train_seconds), queries, unscored)


OFFICIAL: dict[tuple[str, str], Callable[[Task, Sequence[Utterance]], list[Fold]]] = {
    ("pr", "librispeech"): phones,
    ("asr", "librispeech"): transcripts,
    ("ks", "speech_commands"): keywords,
    ("sid", "voxceleb1"): identities,
    ("asv", "voxceleb1"): trials,
    ("ic", "fluent_speech_commands"): intents,
    ("er", "iemocap"): emotions,
    ("sf", "audio_snips"): slot_filling,
    ("sd", "libri2mix"): diarization,
}
