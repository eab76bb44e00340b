"""Slot filling (SF): a transcript with slots as CTC symbols, and the two metrics on decoded text.

Decoded text has a slot's words between two marks: `PLAY B-artist ABBA AND FRIENDS E-artist`. The
rules are those of s3prl's `CharacterTextSlotEncoder`, `slot_type_f1` and `slot_value_cer`.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein

from skill.superb.vocabulary import END, LETTERS, UNKNOWN

_NOT_SPOKEN = "?!.,;-"
_SPELLED = frozenset(LETTERS) - {"|"}
_SLOT = re.compile(r"B-(\S+) (.+?) E-\1")
_OPENING, _CLOSING = re.compile(r"B-\S+ "), re.compile(r" E-\S+")
_FAR = 100  # as many edits as this times the reference's length are no match

Slots = list[tuple[str, str]]


def slot_symbols(text: str) -> list[str]:
    """CTC symbols of `WORD/slot …`: letters, blanks between words, `B-slot` and `E-slot` around.

    Neighbours of one slot share their marks; punctuation is not spoken. What is no capital letter
    (a figure, an accent) is the unknown symbol. The end symbol takes the place of the last blank;
    it is missing where the last word is punctuation.
    """
    pairs = [token.rpartition("/")[::2] for token in text.split()]
    symbols: list[str] = []
    for index, (word, slot) in enumerate(pairs):
        if word in _NOT_SPOKEN:
            continue
        if slot != "O" and (index == 0 or pairs[index - 1][1] != slot):
            symbols.append(f"B-{slot}")
        spelling = "AND" if word == "&" else word
        symbols += [letter if letter in _SPELLED else UNKNOWN for letter in spelling]
        is_last = index + 1 == len(pairs)
        if slot != "O" and (is_last or pairs[index + 1][1] != slot):
            symbols.append(f"E-{slot}")
        symbols.append(END if is_last else " ")
    return symbols


def slot_text(symbols: Iterable[str]) -> str:
    """Symbols as one string in which slot marks stand as words of their own."""
    spaced = (
        f"{s} " if s.startswith("B-") else f" {s}" if s.startswith("E-") else s
        for s in symbols
        if s != END
    )
    return "".join(spaced)


def reference_slots(text: str) -> Slots:
    """(slot, value) pairs of a decoded string: `B-slot value E-slot`, other words ignored.

    Runs of blanks count as one, so that a slot of blanks only is none.
    """
    return _SLOT.findall(re.sub(" +", " ", text))


def hypothesis_slots(text: str) -> Slots:
    """As `reference_slots`, and marks within a value are taken out of it.

    Where a closing mark is lost or wrong, a value reaches up to the next one of its slot and has
    the marks of other slots inside.
    """
    return [(name, _CLOSING.sub("", _OPENING.sub("", v))) for name, v in reference_slots(text)]


def slot_type_score(reference: str, hypothesis: str) -> float:
    """F1 between the sets of slot names of one utterance; 1 if both are empty, 0 if one is."""
    expected, decoded = (
        {name for name, _ in reference_slots(text)} for text in (reference, hypothesis)
    )
    if not expected and not decoded:
        return 1.0
    return 2 * len(expected & decoded) / (len(expected) + len(decoded))


def slot_f1(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Mean over utterances of the F1 between the *sets of slot names* (s3prl's slot_type_f1).

    Raises:
        ValueError: lists of different lengths, or empty ones.
    """
    scores = [slot_type_score(r, h) for r, h in zip(references, hypotheses, strict=True)]
    if not scores:
        raise ValueError("a slot F1 needs at least one utterance")
    return float(np.mean(scores))


def slot_value_counts(reference: str, hypothesis: str) -> tuple[int, int]:
    """Character edits and reference characters of one utterance's slot values.

    Each reference value is compared with the closest value that the hypothesis has for that slot,
    or with nothing where the slot is absent.
    """
    decoded = hypothesis_slots(hypothesis)
    edits = characters = 0
    for name, value in reference_slots(reference):
        distances = [Levenshtein.distance(value, other) for slot, other in decoded if slot == name]
        near = [distance for distance in distances if distance < _FAR * len(value)]
        edits += min(near, default=len(value))
        characters += len(value)
    return edits, characters


def slot_value_cer(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Σ character edits of slot values / Σ their characters (s3prl's slot_value_cer).

    Raises:
        ValueError: lists of different lengths, or no reference value at all.
    """
    counts = [slot_value_counts(r, h) for r, h in zip(references, hypotheses, strict=True)]
    characters = sum(length for _, length in counts)
    if characters == 0:
        raise ValueError("a slot value error rate needs at least one reference value")
    return sum(edits for edits, _ in counts) / characters
