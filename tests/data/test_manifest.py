"""Manifests and reading: what is written is read back, and what is broken is named."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from skill.data import audio
from skill.data.corpora import librispeech
from skill.data.manifest import RATE, Utterance, read_manifest, write_manifest
from skill.utils.errors import SkillError

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)
HEADER = "id,corpus,path,start,samples,speaker,language,text,split,kind\n"


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(TEXT, TEXT, st.integers(0, 10**10), st.integers(1, 10**7)), min_size=1))
def test_a_manifest_is_read_as_it_was_written(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("manifest")
    utterances = [
        Utterance(f"u{i}", "c", "a b.flac", start, samples, speaker, "en", text, "dev")
        for i, (speaker, text, start, samples) in enumerate(rows)
    ]
    for name in ("one.csv", "two.csv"):
        write_manifest(folder / name, utterances)
    assert read_manifest(folder / "one.csv") == utterances
    assert (folder / "one.csv").read_bytes() == (folder / "two.csv").read_bytes()


GOOD = "a,c,p.flac,0,10,,en,,train,human\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEADER, "empty"),
        ("", "empty"),
        ("id,path\nx,y\n", "lacks the columns corpus"),
        (HEADER.replace("kind", "mood") + GOOD, "unknown columns mood"),
        (HEADER + "a,c,p.flac,x,10,,en,,train,human\n", "row 2: start and samples"),
        (HEADER + "a,c,p.flac,0,0,,en,,train,human\n", "row 2: start"),
        (HEADER + "a,c,p.flac,-1,5,,en,,train,human\n", "row 2: start"),
        (HEADER + GOOD + "b,c,p.flac,0,10,,en,,tset,human\n", "row 3: split is 'tset'"),
        (HEADER + "a,c,p.flac,0,10,,en,,train,robot\n", "kind is 'robot'"),
        (HEADER + GOOD + GOOD, "row 3: the id a occurs twice"),
        (HEADER + "a,c,p.flac\n", "row 2: wrong number of columns"),
        (HEADER + GOOD.strip() + ",more\n", "row 2: wrong number of columns"),
        (HEADER + ",c,p.flac,0,10,,en,,train,human\n", "row 2: id and path"),
    ],
)
def test_a_broken_manifest_is_named(tmp_path: Path, text: str, said: str):
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(SkillError, match=said) as error:
        read_manifest(path)
    assert "m.csv" in str(error.value)


def test_a_missing_or_binary_manifest_is_named(tmp_path: Path):
    with pytest.raises(SkillError, match=r"none\.csv"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "b.csv").write_bytes(bytes(range(128, 256)))
    with pytest.raises(SkillError, match=r"b\.csv"):
        read_manifest(tmp_path / "b.csv")


def _libri(root: Path, damage: bool = False) -> None:
    for part, speaker in (("dev-clean", "84"), ("train-clean-100", "103"), ("test-clean", "61")):
        for chapter in ("1", "2"):
            place = root / "LibriSpeech" / part / speaker / chapter
            place.mkdir(parents=True)
            lines = []
            for index in range(3):
                name = f"{speaker}-{chapter}-{index:04d}"
                size = 1000 + 100 * index
                soundfile.write(place / f"{name}.flac", np.zeros(size), RATE, "PCM_16")
                lines.append(f"{name} WORD NUMBER {'ABC'[index]}\n")
            (place / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines))
    if damage:
        for path in sorted(root.rglob("*.flac"))[:2]:
            path.write_bytes(b"RIFF" + bytes(60))


PARTS = ("train-clean-100", "dev-clean", "test-clean")


def test_librispeech_manifest_of_the_official_layout(tmp_path: Path, monkeypatch):
    root = tmp_path / "the corpora"
    _libri(root)
    monkeypatch.setenv("SKILL_CORPORA", str(root))
    for name in ("one.csv", "two.csv"):
        librispeech.build("librispeech", PARTS, tmp_path / name)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    rows = read_manifest(tmp_path / "one.csv")
    assert len(rows) == 18
    assert rows[0] == Utterance(
        id="103-1-0000",
        corpus="librispeech",
        path="LibriSpeech/train-clean-100/103/1/103-1-0000.flac",
        start=0,
        samples=1000,
        speaker="103",
        text="WORD NUMBER A",
        split="train",
    )
    assert [row.split for row in rows[::6]] == ["train", "dev", "test"]
    assert len(audio.read_segment(rows[-1])) == 1200


def test_librispeech_errors_are_words(tmp_path: Path, monkeypatch):
    monkeypatch.delenv("SKILL_CORPORA", raising=False)
    with pytest.raises(SkillError, match="SKILL_CORPORA is not set"):
        librispeech.build("ls", PARTS, tmp_path / "m.csv")
    monkeypatch.setenv("SKILL_CORPORA", str(tmp_path))
    with pytest.raises(SkillError, match=r"train-clean-100 is missing"):
        librispeech.build("ls", PARTS, tmp_path / "m.csv")
    with pytest.raises(SkillError, match="no part"):
        librispeech.build("ls", ("train-dirty",), tmp_path / "m.csv")
    _libri(tmp_path, damage=True)
    with pytest.raises(SkillError, match="not a FLAC file"):
        librispeech.build("ls", PARTS, tmp_path / "m.csv")
    assert not list(tmp_path.glob("*.csv"))


def test_mini_librispeech_is_two_more_parts(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("SKILL_CORPORA", str(tmp_path))
    _libri(tmp_path)
    (tmp_path / "LibriSpeech/train-clean-100").rename(tmp_path / "LibriSpeech/train-clean-5")
    librispeech.build("mini", ("train-clean-5",), tmp_path / "m.csv")
    assert {row.split for row in read_manifest(tmp_path / "m.csv")} == {"train"}


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (RATE, 2)])
def test_flac_headers_of_another_kind_are_errors(tmp_path: Path, rate: int, channels: int):
    path = tmp_path / "x.flac"
    soundfile.write(path, np.zeros((500, channels)), rate, "PCM_16")
    with pytest.raises(SkillError, match=r"x\.flac"):
        librispeech.flac_samples(path)
