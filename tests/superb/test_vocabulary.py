"""Vocabularies, decoding and pronunciations."""

import pytest

from skill.superb import vocabulary
from skill.utils.errors import SkillError


def test_vocabularies_have_superbs_ids():
    phones, letters = vocabulary.phone_vocabulary(), vocabulary.letter_vocabulary()
    assert (len(phones), len(letters)) == (74, 32)
    assert len(vocabulary.PHONES) == len(set(vocabulary.PHONES)) == 71
    assert phones.symbols[3:6] == ("SIL", "SPN", "AA0") and phones.symbols[-1] == "ZH"
    assert letters.encode(vocabulary.letters_of("it is")) == [10, 6, 4, 10, 12, 4, 2]


def test_greedy_decoding_merges_then_drops_blanks():
    phones = vocabulary.phone_vocabulary()
    b, k = phones.ids["B"], phones.ids["K"]
    assert phones.decode([0, b, b, 0, b, k, k, 1, 0]) == ["B", "B", "K"]
    assert phones.decode([0, 0]) == []
    assert vocabulary.words_of(list("|IT||IS|")) == ["IT", "IS"]


def test_first_pronunciation_with_stress_digits(tmp_path):
    lexicon = vocabulary.cmu_lexicon()
    amazon = ["DH", "AH0", "AE1", "M", "AH0", "Z", "AA2", "N"]
    assert vocabulary.phones_of("THE AMAZON", lexicon) == amazon
    assert vocabulary.phones_of("THE XQZT", lexicon) is None
    assert all(p in vocabulary.PHONES for phones in lexicon.values() for p in phones)
    (tmp_path / "lexicon.txt").write_text("A AH0\nA EY1\n\nBAD\n")
    with pytest.raises(SkillError, match=r"lexicon\.txt, line 4: 'BAD'"):
        vocabulary.read_lexicon([tmp_path / "lexicon.txt"])
