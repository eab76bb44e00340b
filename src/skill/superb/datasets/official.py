"""Examples of SUPERB's tasks from the manifests of their official corpora, by the protocol's rules.

LibriSpeech serves PR and ASR, where PR's words are looked up in s3prl's two lexicons. VoxCeleb1
serves SID (official split) and ASV (the speakers of the official trials are unseen in training).
IC, SF and ER serve synthetic speech in the sample scale, too: its manifests say the same.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from skill.config.tasks import Task
from skill.data import audio, effects
from skill.data.corpora.superb import (
    KEYWORDS,
    SILENCE,
    UNKNOWN,
    emotion_list,
    slot_names,
    verification_trials,
)
from skill.data.corpora.superb_files import needed
from skill.data.manifest import Utterance
from skill.superb.datasets import sample
from skill.superb.examples import (
    Example,
    Fold,
    Search,
    Trial,
    Waveform,
    batch_order,
    hashed,
    limit_seconds,
    seeded_excerpt,
    with_crops,
)
from skill.superb.metrics import Turn, Unscored
from skill.superb.slots import slot_symbols
from skill.superb.vocabulary import read_lexicon
from skill.utils.errors import SkillError

EMOTIONS = ("neu", "hap", "ang", "sad")
# what is done to a recording before an upstream hears it, by task and corpus
EFFECTS: dict[tuple[str, str], Callable[[Waveform], Waveform]] = {
    ("ks", "speech_commands"): effects.quieter,
    ("qbe", "quesst14"): effects.quieter,
    ("asv", "voxceleb1"): effects.voiced,
}
_HELD_OUT_SPEAKERS = 40  # for the dev trials of the `clean` protocol
_SHORTEST_TRAINING = 32_000  # samples without silences, ASV
_DEV_TRIALS = 20_000


def _heard(u: Utterance, task: Task) -> Waveform:
    signal = audio.read_segment(u)
    effect = EFFECTS.get((task.name, u.corpus))
    return signal if effect is None else effect(signal)


def _example(task: Task, u: Utterance, target: object) -> Example:
    return Example(u.id, u.samples, target, u.speaker or u.id, partial(_heard, u, task))


def phones(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """PR: pronunciations from s3prl's two lexicons."""
    return sample.transcripts(task, utterances, read_lexicon(needed("pr", "librispeech")))


def keywords(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """KS: ten words, unknown and silence. Dev is drawn evenly over classes, as s3prl's loader."""
    names = (*KEYWORDS, UNKNOWN, SILENCE)
    examples = [(u.split, _example(task, u, (_number(u, names, u.text),))) for u in utterances]
    fold = sample.split(task, examples, labels=(names,))
    train, dev = (with_crops(p, task.crop_seconds, task.crops) for p in (fold.train, fold.dev))
    drawn = batch_order("balanced", dev, 1, epoch=0, seed=0)
    chosen = [dev[index] for batch in drawn for index in batch]
    heard = [e if e.crops is None else seeded_excerpt(e, n) for n, e in enumerate(chosen)]
    return [replace(fold, train=train, dev=heard)]


def identities(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """SID: the official split; the label is the number in the speaker's id."""
    names = tuple(sorted({u.speaker for u in utterances}))
    number = {name: index for index, name in enumerate(names)}
    examples = [(u.split, _example(task, u, (number[u.speaker],))) for u in utterances]
    fold = sample.split(task, examples, labels=(names,))
    return [replace(fold, train=with_crops(fold.train, task.crop_seconds, task.crops))]


def trials(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """ASV: the official trials; `superb` watches them while training, `clean` other speakers."""
    official = verification_trials()
    tested = {key for _, first, second in official for key in (first, second)}
    speakers = sorted({u.speaker for u in utterances if "/test/wav/" not in u.path})
    held = set(
        sorted(speakers, key=hashed)[:_HELD_OUT_SPEAKERS] if task.protocol == "clean" else ()
    )
    names = tuple(speaker for speaker in speakers if speaker not in held)
    number = {name: index for index, name in enumerate(names)}
    train, dev, test = [], [], []
    for u in utterances:
        if not u.text.isdecimal():
            raise SkillError(f"asv: {u.id}: the manifest does not say its length without silences")
        example = _example(task, u, (number.get(u.speaker, -1),))
        example = replace(example, samples=int(u.text))
        if u.id in tested:
            test.append(example)
        elif u.speaker in held:
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
    made = [
        Trial(examples[a].cluster == examples[b].cluster, examples[a].id, examples[b].id,
              examples[a].cluster)
        for a, b in zip(first.tolist(), second.tolist(), strict=True) if a != b
    ]  # fmt: skip
    same = [trial for trial in made if trial.same][: _DEV_TRIALS // 2]
    return same + [trial for trial in made if not trial.same][: len(same)]


def intents(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """IC: three labels; their classes in the order in which the training list names them."""
    rows = [(u, _labels(u)) for u in utterances]
    names = tuple(
        tuple(dict.fromkeys(labels[slot] for u, labels in rows if u.split == "train"))
        for slot in range(3)
    )
    examples = [
        (u.split, _example(task, u, tuple(_number(u, names[n], labels[n]) for n in range(3))))
        for u, labels in rows
    ]
    return [sample.split(task, examples, labels=names)]


def _labels(u: Utterance) -> list[str]:
    labels = u.text.split(";")
    if len(labels) != 3:
        raise SkillError(f"ic: {u.id}: {u.text!r} is no `action;object;location`")
    return labels


def _number(u: Utterance, names: Sequence[str], label: str) -> int:
    if label not in names:
        raise SkillError(f"{u.corpus}: {u.id}: {label!r} is none of {', '.join(names)}")
    return names.index(label)


def emotions(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """ER: fold k tests session k; of the others, four fifths train and the rest is dev.

    As s3prl: the first of `torch.randperm` from seed 0 train. IEMOCAP's utterances are in the order
    of its lists, those of other corpora in the manifest's.
    """
    listed = needed(task.name, task.corpora[0])
    rank = {key: n for n, key in enumerate(key for path in listed for key in emotion_list(path))}
    if listed and rank.keys() != {u.id for u in utterances}:
        (key, *_) = sorted(rank.keys() ^ {u.id for u in utterances})
        place = listed[0].parents[1]
        raise SkillError(f"er: {key} is in only one of the corpus and the lists of {place}")
    ordered = sorted(utterances, key=lambda u: rank.get(u.id, 0))
    examples = [_example(task, u, (_number(u, EMOTIONS, u.text),)) for u in ordered]
    folds = []
    for session in range(1, task.folds + 1):
        inside = [u.speaker[:5] == f"Ses0{session}" for u in ordered]
        test = [e for e, is_test in zip(examples, inside, strict=True) if is_test]
        rest = [e for e, is_test in zip(examples, inside, strict=True) if not is_test]
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(rest), generator=generator).tolist()
        size = int((1 - 0.2) * len(rest))
        parts = {
            "train": [rest[i] for i in order[:size]],
            "dev": [rest[i] for i in order[size:]],
            "test": test,
        }
        pairs = [(part, example) for part, members in parts.items() for example in members]
        folds.append(sample.split(task, pairs, labels=(EMOTIONS,)))
    return folds


def slot_filling(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """SF: transcripts with slot marks; the names are all of Audio SNIPS's list.

    Of another corpus, those of the training part.
    """
    examples = [(u.split, _example(task, u, slot_symbols(u.text))) for u in utterances]
    fold = sample.split(task, examples)
    listed = needed(task.name, task.corpora[0])
    if listed:
        marks = [f"{mark}-{name}" for name in slot_names(*listed) for mark in "BE"]
    else:
        marks = sorted({s for e in fold.train for s in e.target if s.startswith(("B-", "E-"))})
    return [replace(fold, labels=(tuple(marks),))]


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
        examples.append((u.split, replace(_example(task, u, turns), cluster=voices)))
    return [sample.split(task, examples)]


def search(task: Task, utterances: Sequence[Utterance]) -> Search:
    """QbE: English queries and documents are scored; with `table: whole`, all others count, too."""
    documents = [u for u in utterances if u.split == "train"]
    scored = [_example(task, u, tuple(u.text.split())) for u in documents if u.language == "en"]
    foreign = Counter(name for u in documents if u.language != "en" for name in u.text.split())
    matched = {name for u in documents for name in u.text.split()}
    queries: dict[str, list[Example]] = {}
    unscored: dict[str, Unscored] = {}
    for split, seconds in (("dev", task.dev_seconds), ("test", task.test_seconds)):
        listed = [u for u in utterances if u.split == split]
        english = [_example(task, u, u.text) for u in listed if u.language == "en"]
        queries[split] = limit_seconds(english, seconds)
        unscored[split] = Unscored(
            sum(u.language != "en" and u.text in matched for u in listed),
            len(documents) - len(scored),
            np.array([foreign[query.target] for query in queries[split]], dtype=np.int64),
        )
    if task.table == "english":
        unscored = {}
    return Search(limit_seconds(scored, task.train_seconds), queries, unscored)


# tasks whose labels stand in the manifest in the same way, whatever the corpus
LABELLED = {"ic": intents, "sf": slot_filling, "er": emotions}
OFFICIAL: dict[tuple[str, str], Callable[[Task, Sequence[Utterance]], list[Fold]]] = {
    ("pr", "librispeech"): phones,
    ("asr", "librispeech"): sample.transcripts,
    ("ks", "speech_commands"): keywords,
    ("sid", "voxceleb1"): identities,
    ("asv", "voxceleb1"): trials,
    ("ic", "fluent_speech_commands"): intents,
    ("er", "iemocap"): emotions,
    ("sf", "audio_snips"): slot_filling,
    ("sd", "libri2mix"): diarization,
}
