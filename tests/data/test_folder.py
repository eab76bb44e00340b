"""One's own folder of audio: what is taken, what is left out and said, what makes a new run."""

import os

import numpy as np
import pytest
import soundfile

from skill.config.params import Corpus
from skill.data.audio import read_segment
from skill.data.corpora import prepare, state
from skill.data.manifest import read_manifest
from skill.data.transcripts import spell_out, transcript
from skill.utils.errors import SkillError

FOLDER = Corpus(kind="folder")


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKILL_CORPORA", str(tmp_path / "my corpora"))
    place = tmp_path / "my corpora/mine"
    for name in ("anna/1.wav", "anna/2.flac", "ben/3.wav"):
        recording(place / name)
    return place


def recording(path, seed=0, subtype=None, scale=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    signal = scale * np.random.default_rng(seed).laplace(0, 0.05, 16_000).clip(-0.9, 0.9)
    soundfile.write(path, signal, 16_000, subtype)
    return signal


def made():
    prepare.run("mine", FOLDER, "m.csv", "m.flac")
    return read_manifest("m.csv")


def test_what_is_passed_over_is_counted_and_named(mine, capsys, tmp_path):
    for number in range(7):
        (mine / f"anna/{number}.m4a").write_bytes(b"x")
    (mine / "notes.docx").write_bytes(b"x")
    (mine / "anna/lost.txt").write_text("nobody said this")
    (mine / "anna/1.txt").write_bytes(b"caf\xe9")
    (mine / "ben/3.txt").write_text("$5 and 7:30")
    (mine / "line\nbreak.wav").write_bytes((mine / "anna/1.wav").read_bytes())
    os.mkfifo(mine / "pipe.wav")
    (mine / "linked").symlink_to(tmp_path)
    for name in (".DS_Store", "anna/._1.wav", ".cache/4.wav"):
        (mine / name).parent.mkdir(exist_ok=True)
        (mine / name).write_bytes(b"x")
    assert len(made()) == 3
    said = capsys.readouterr().err
    assert "(.m4a): 7 (anna/0.m4a, anna/1.m4a, anna/2.m4a, anna/3.m4a, anna/4.m4a, …)" in said
    for words in ("(.docx): 1 (notes.docx)", "no recording: 1 (anna/lost.txt)",
                  "not UTF-8 text", "no words in A-Z (the audio stays): 1 (ben/3.txt)",
                  "devices: 2 (linked, pipe.wav)", "cannot hold: 1 ("):  # fmt: skip
        assert words in said, words
    assert "DS_Store" not in said and "._1" not in said


def test_one_bad_recording_is_left_out_and_named_and_many_are_an_error(mine, capsys):
    signal = recording(mine / "bad.wav")
    signal[:10] = np.nan
    soundfile.write(mine / "bad.wav", signal, 16_000, "FLOAT")
    assert len(made()) == 3
    assert "unreadable: 1 (mine-bad.wav" in (said := capsys.readouterr().err)
    assert "bad.wav: a sample is not a number" in said
    soundfile.write(mine / "quiet.wav", np.zeros(16_000), 16_000)
    with pytest.raises(SkillError, match="2 of 5 recordings cannot be read"):
        made()


def test_floats_that_count_in_integers_become_speech(mine, capsys):
    for name, scale in (("a", 1.0), ("b", 32_768.0), ("c", 2.0 / 0.9)):
        recording(mine / f"{name}.wav", 1, "FLOAT", scale)
    rows = {row.id: read_segment(row) for row in made()}
    np.testing.assert_allclose(rows["mine-b.wav"], rows["mine-a.wav"], atol=1e-4)
    assert (np.abs(rows["mine-c.wav"]) > 0.999).mean() < 0.001  # not a square wave
    assert "b.wav: samples reach" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "said"), [
    ("5 o'clock", "FIVE O'CLOCK"), ("It is café time", "IT IS CAFE TIME"),
    ("in 1984", "IN NINETEEN EIGHTY FOUR"), ("the 21st of May", "THE TWENTY FIRST OF MAY"),
    ("1,234 men", "ONE THOUSAND TWO HUNDRED THIRTY FOUR MEN"),
    ("3.5 miles", "THREE POINT FIVE MILES"),
    ("the 7:30 train", ""), ("it costs $5", ""), ("bus B2", ""), ("50% of it", ""),
])  # fmt: skip
def test_numbers_are_spelled_and_accents_go(text, said):
    assert transcript(spell_out(text)) == said


def test_a_changed_folder_is_another_state(mine, monkeypatch, tmp_path):
    def now(kind="folder", name="mine"):
        state._state.cache_clear()
        return state.source_state(name, Corpus(kind=kind))

    seen = [now()]
    assert now() == seen[0]
    recording(mine / "4.wav", 4)
    seen.append(now())
    recording(mine / "4.wav", 5)
    os.utime(mine / "4.wav", (1, 1))
    seen.append(now())
    (mine / "4.wav").rename(mine / "5.wav")
    seen.append(now())
    (mine / ".DS_Store").write_bytes(b"x")
    assert now() == seen[-1]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("SKILL_CORPORA", str(tmp_path / "elsewhere"))
    seen.append(now())
    assert len(set(seen)) == len(seen)
    (tmp_path / "elsewhere/IEMOCAP_full_release").mkdir()
    before = now("iemocap", "emotions")
    (tmp_path / "elsewhere/IEMOCAP_full_release/more.txt").write_text("x")
    assert now("iemocap", "emotions") != before
    assert now("synthetic") is None and now("librispeech") is None
    monkeypatch.delenv("SKILL_CORPORA")
    assert now() is None
