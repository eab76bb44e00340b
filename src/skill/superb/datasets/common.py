"""What the builders of all corpora share: examples of utterances, splits, transcripts."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from skill.config.tasks import Task
from skill.data import audio, effects
from skill.data.manifest import Utterance
from skill.superb import vocabulary
from skill.superb.examples import Example, Fold, Waveform, limit_seconds
from skill.utils.errors import SkillError

SHORTEST = 1600  # samples: a tenth of a second
EFFECTS: dict[tuple[str, str], Callable[[Waveform], Waveform]] = {
    ("ks", "speech_commands"): effects.attenuate,
    ("qbe", "quesst14"): effects.attenuate,
    ("asv", "voxceleb1"): effects.attenuate_and_trim,
}
"""What is done to a recording before an upstream hears it, by task and corpus."""


def example_of(task: Task, utterance: Utterance, target: object) -> Example:
    """An utterance as an example; its cluster is the speaker, where that is known."""
    return Example(
        utterance.id, utterance.samples, target, utterance.speaker or utterance.id,
        partial(_read, utterance, task.name),
    )  # fmt: skip


def _read(utterance: Utterance, task: str) -> Waveform:
    signal = audio.read_segment(utterance)
    effect = EFFECTS.get((task, utterance.corpus))
    return signal if effect is None else effect(signal)


def class_number(u: Utterance, names: Sequence[str], label: str) -> int:
    """The number of an utterance's class.

    Raises:
        SkillError: it is none of `names`.
    """
    if label not in names:
        raise SkillError(f"{u.corpus}: {u.id}: {label!r} is none of {', '.join(names)}")
    return names.index(label)


def split(task: Task, examples: Sequence[tuple[str, Example]], **more: object) -> Fold:
    """A fold from (split, example) pairs, each split cut to the task's seconds."""
    parts: dict[str, list[Example]] = {"train": [], "dev": [], "test": []}
    for split, example in examples:
        parts[split].append(example)
    limits = {"train": task.train_seconds, "dev": task.dev_seconds, "test": task.test_seconds}
    limited = {name: limit_seconds(part, limits[name]) for name, part in parts.items()}
    return Fold(**limited, **more)  # type: ignore[arg-type]


def transcripts(
    task: Task, utterances: Sequence[Utterance], lexicon: vocabulary.Lexicon | None = None
) -> list[Fold]:
    """PR and ASR on English utterances with a transcript that can be spelled or pronounced.

    `lexicon`: CMU's dictionary where none is given.
    """
    if task.vocabulary == "phones" and lexicon is None:
        lexicon = vocabulary.cmu_lexicon()
    left_out: Counter[str] = Counter()
    letters = set(vocabulary.LETTERS)
    examples = []
    for utterance in utterances:
        if not utterance.text or utterance.language != "en" or utterance.samples < SHORTEST:
            continue
        if task.vocabulary == "phones":
            target = vocabulary.phones_of(utterance.text.upper(), lexicon or {})
            reason = "a word is not in the dictionary"
        else:
            target = vocabulary.letters_of(utterance.text)
            target = target if letters.issuperset(target) else None
            reason = "a character is not in the alphabet"
        if target is None:
            left_out[reason] += 1
            continue
        examples.append((utterance.split, example_of(task, utterance, target)))
    return [split(task, examples, left_out=dict(left_out))]
