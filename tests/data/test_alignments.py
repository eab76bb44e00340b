"""Alignments: the table's round trip, labels of frames, and the table that is shipped."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skill.data.alignments import Phone, Word, phone_labels, read, write
from skill.utils.errors import SkillError
from skill.utils.files import read_json, sha256

ROOT = Path(__file__).parents[2]

PHONES = st.sampled_from(["AA", "B", "SIL", "ZH", "+SPN+"])


@st.composite
def utterances(draw: st.DrawFn) -> tuple[Word, ...]:
    words, at = [], 0
    for text in draw(st.lists(st.sampled_from(["you", "don't", "<sil>", "a=b"]), min_size=1)):
        phones = []
        for name in draw(st.lists(PHONES, min_size=1, max_size=4)):
            frames = draw(st.integers(1, 40))
            phones.append(Phone(name, at, frames))
            at += frames
        words.append(Word(text, tuple(phones)))
    return tuple(words)


@given(st.dictionaries(st.sampled_from(["q/1", "q/2", "a"]), utterances()))
def test_a_table_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, alignments: dict[str, tuple[Word, ...]]
) -> None:
    path = tmp_path_factory.mktemp("table") / "alignments.csv.gz"
    write(path, alignments)
    assert read(path) == alignments


@given(utterances(), st.lists(st.integers(0, 100_000), min_size=1))
def test_a_sample_has_the_phone_that_lies_there(
    words: tuple[Word, ...], samples: list[int]
) -> None:
    numbers = {"AA": 0, "B": 1, "ZH": 2}
    labels = phone_labels(words, numbers, np.array(samples))
    for sample, label in zip(samples, labels, strict=True):
        there = [
            phone.name
            for word in words
            for phone in word.phones
            if phone.start * 160 <= sample < (phone.start + phone.frames) * 160
        ]
        assert label == (numbers.get(there[0], -1) if there else -1)


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "alignments.csv.gz"
    with pytest.raises(SkillError, match="not a readable table"):
        read(path)
    write(path, {"u": (Word("a", (Phone("AA", 0, 3),)),)})
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SkillError, match=r"alignments\.csv\.gz"):
        read(path)


def test_the_shipped_table_is_the_one_of_its_summary() -> None:
    path = ROOT / "data/alignments.csv.gz"
    summary = read_json(ROOT / "data/alignments.json")
    alignments = read(path)
    assert sha256(path) == summary["sha256"]
    assert len(alignments) == summary["aligned"]
    left_out = len(summary["clips_with_unknown_words"]) + len(summary["clips_that_do_not_align"])
    assert summary["aligned"] + left_out == summary["clips"]
    assert left_out < 0.06 * summary["clips"]
    names = {phone.name for words in alignments.values() for word in words for phone in word.phones}
    assert len(names - {"SIL"}) == 39
