"""Texts that people have saved: read whatever their ends and marks are, or named."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skill.superb.vocabulary import read_lexicon
from skill.utils.errors import SkillError
from skill.utils.text import masked, read_csv, read_fields, read_lines, read_text

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=9)


@settings(deadline=None, max_examples=50)
@given(st.lists(WORDS, min_size=1, max_size=5), st.sampled_from(["\n", "\r\n", "\r"]),
       st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]), st.booleans())  # fmt: skip
def test_marks_and_ends_change_nothing(tmp_path_factory, words, end, encoding, closed):
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_bytes((end.join(words) + (end if closed else "")).encode(encoding))
    if encoding == "utf-8" and words[0].startswith("\ufeff"):
        return
    assert read_lines(path) == words


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200) | st.text(max_size=80).map(lambda t: t.encode("utf-8", "replace"))
       | st.lists(st.sampled_from(["a,b", '"', "\n", "\r", "x,y,z", "\0", ";"])).map(
           lambda parts: "".join(parts).encode()))  # fmt: skip
def test_readers_of_lists_give_rows_or_a_sentence(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("text") / "list.csv"
    path.write_bytes(content)
    for read in (
        read_text,
        read_lines,
        lambda p: list(read_fields(p, 2, 3)),
        read_csv,
        lambda p: read_csv(p, ("a", "b")),
        lambda p: read_lexicon([p]),
    ):
        try:
            read(path)
        except SkillError as error:
            assert "list.csv" in str(error)


def test_what_is_no_file_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, words in ((tmp_path, "not a regular file"), (tmp_path / "pipe", "not a regular file"),
                        (tmp_path / "none", "no such file")):  # fmt: skip
        with pytest.raises(SkillError, match=words):
            read_text(path)


def test_a_missing_column_and_a_short_row_are_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n3\n")
    with pytest.raises(SkillError, match=r"a\.csv: no column c; there are a, b"):
        read_csv(path, ("a", "c"))
    with pytest.raises(SkillError, match=r"a\.csv, row 3: no b"):
        read_csv(path, ("a", "b"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:p@ss@host/a is wrong", "https://***@host/a is wrong"),
        ("see https://h/a?key=s3cret&x=1, then 'http://u@h?s3cret'", "see https://h/a?*** then "
         "'http://***@h?***'"),
        ("nothing@here: a?b=c", "nothing@here: a?b=c"),
    ],
)  # fmt: skip
def test_addresses_keep_their_secrets(text: str, shown: str) -> None:
    assert masked(text) == shown
