"""One reader for all: exact slices, any rate and format, and what is broken is named."""

import io
import multiprocessing
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from skill.data import audio
from skill.data.manifest import RATE, Utterance
from skill.utils.errors import SkillError


@pytest.fixture
def utterance(tmp_path: Path) -> Utterance:
    samples = np.arange(-8000, 8000, dtype=np.int16)
    soundfile.write(tmp_path / "x.flac", samples, RATE, "PCM_16")
    return Utterance("u", "c", str(tmp_path / "x.flac"), 100, 5000)


def test_reading_gives_the_samples_that_the_manifest_says(utterance: Utterance):
    wanted = np.arange(-7900, -2900, dtype=np.float32) / 32768
    assert np.array_equal(audio.read_segment(utterance), wanted)
    assert np.array_equal(audio.read_segment(utterance, 10, 20), wanted[10:30])
    with pytest.raises(ValueError, match="outside utterance u"):
        audio.read_segment(utterance, 4990, 20)


def _read_in_child(utterance: Utterance, queue: "multiprocessing.Queue[bool]") -> None:
    queue.put(bool(audio.read_segment(utterance)[0] == np.float32(-7900 / 32768)))


def test_a_forked_process_has_its_own_place_in_the_file(utterance: Utterance):
    audio.read_segment(utterance)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_read_in_child, args=(utterance, queue))
    child.start()
    assert all(audio.read_segment(utterance)[0] == np.float32(-7900 / 32768) for _ in range(20))
    assert queue.get(timeout=20)
    child.join()


def test_paths_are_below_the_working_directory_or_the_corpora(utterance, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inside = replace(utterance, path="x.flac")
    assert len(audio.read_segment(inside)) == 5000
    monkeypatch.chdir("/")
    with pytest.raises(SkillError, match="missing"):
        audio.read_segment(replace(utterance, path="y.flac"))
    monkeypatch.setenv("SKILL_CORPORA", str(tmp_path))
    assert len(audio.read_segment(inside)) == 5000


def _broken(tmp_path: Path, name: str) -> tuple[Path, str]:
    path = tmp_path / f"{name}.wav"
    tone = np.zeros(8000, dtype=np.float32)
    match name:
        case "nan":
            tone[500] = np.nan
            soundfile.write(path, tone, RATE, "FLOAT")
            return path, "not a number"
        case "text":
            path.write_text("hello")
            return path, "not readable as audio"
        case "empty":
            path.write_bytes(b"")
            return path, "not readable as audio"
        case "short":
            soundfile.write(path, tone[:700], RATE)
            return path, "truncated"
    return path, "missing"


@pytest.mark.parametrize("name", ["nan", "text", "empty", "short", "gone"])
def test_a_broken_file_is_named_with_its_utterance(tmp_path: Path, name: str):
    path, said = _broken(tmp_path, name)
    with pytest.raises(SkillError, match=said) as error:
        audio.read_segment(Utterance("utt7", "c", str(path), 0, 8000))
    assert name in str(error.value) and "utt7" in str(error.value)


def test_a_flac_cut_in_the_middle_is_named(tmp_path: Path):
    noise = np.random.default_rng(0).integers(-9000, 9000, 40_000).astype(np.int16)
    whole, cut = tmp_path / "whole.flac", tmp_path / "cut.flac"
    soundfile.write(whole, noise, RATE, "PCM_16")
    cut.write_bytes(whole.read_bytes()[:30_000])
    with pytest.raises(SkillError, match=r"cut\.flac, utterance u"):
        audio.read_segment(Utterance("u", "c", str(cut), 0, 40_000))


def tone(seconds, rate):
    return 0.3 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)


@pytest.mark.parametrize(("rate", "channels", "kind"), [
    (8000, 1, "wav"), (44100, 2, "wav"), (16000, 2, "flac"), (22050, 2, "mp3"), (16000, 1, "mp3"),
])  # fmt: skip
def test_other_rates_channels_and_formats(tmp_path, rate, channels, kind):
    path = tmp_path / f"a b.{kind}"
    soundfile.write(path, np.stack([tone(1.0, rate)] * channels, axis=1), rate)
    assert audio.recording_length(path) == 16000
    utterance = Utterance("u", "c", str(path), 4000, 8000)
    signal = audio.read_segment(utterance)
    assert signal.dtype == np.float32 and len(signal) == 8000
    expected = tone(1.0, 16000)[4000:12000]
    assert np.corrcoef(signal, expected)[0, 1] > 0.99
    assert np.abs(signal).max() == pytest.approx(0.3, abs=0.02)


def test_truncated_missing_and_damaged_files_are_named(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(1.0, 8000), 8000)
    with pytest.raises(SkillError, match=r"a\.wav, utterance u: truncated: 16000 of 20000 samples"):
        audio.read_segment(Utterance("u", "c", str(tmp_path / "a.wav"), 0, 20000))
    with pytest.raises(SkillError, match=r"b\.wav, utterance u: the file is missing"):
        audio.read_segment(Utterance("u", "c", str(tmp_path / "b.wav"), 0, 20000))
    (tmp_path / "c.wav").write_text("nothing")
    with pytest.raises(SkillError, match=r"c\.wav: not readable as audio"):
        audio.recording_length(tmp_path / "c.wav")


@pytest.mark.parametrize("rate", [8000, 11_025, 44_100, 192_000])
@pytest.mark.parametrize("target", [11_025, RATE])
def test_converting_in_blocks_equals_converting_at_once(tmp_path, monkeypatch, rate, target):
    monkeypatch.setattr(audio, "_BLOCK", 10_007)
    stereo = np.random.default_rng(0).normal(0, 0.1, (rate, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", stereo, rate, "PCM_24")
    mono = soundfile.read(tmp_path / "a.wav", dtype="float32")[0].mean(axis=1, dtype=np.float32)
    expected = mono if rate == target else soxr.resample(mono, rate, target)
    assert np.array_equal(audio.read_recording(tmp_path / "a.wav", target), expected)


def segment_of(path: Path) -> audio.Signal:
    return audio.read_segment(Utterance("u", "c", str(path), 100, 1500))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [8000, RATE])
def test_values_that_are_no_numbers_are_refused_everywhere(tmp_path, bad, rate):
    signal = tone(1.0, rate)
    signal[500:510] = bad
    path = tmp_path / "a.wav"
    soundfile.write(path, signal, rate, "FLOAT")
    for read in (
        audio.read_recording,
        lambda p: audio.read_segment(Utterance("u", "c", str(p), 0, 9)),
    ):
        with pytest.raises(SkillError, match=r"a\.wav.*not a number"):
            read(path)


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("full", [2.0, 2.0**15, 2.0**23, 2.0**31])
def test_samples_beyond_full_scale_are_scaled_and_never_clipped(tmp_path, subtype, full, capsys):
    speech = np.random.default_rng(1).laplace(0, 0.05, 3 * RATE).clip(-0.99, 0.99)
    peak = np.abs(speech).max()
    path = tmp_path / "a.wav"
    soundfile.write(path, speech * full / (peak if full == 2 else 1), RATE, subtype)
    expected = speech / peak if full == 2 else speech
    for signal in (
        audio.read_recording(path),
        audio.read_segment(Utterance("u", "c", str(path), 0, len(speech))),
    ):
        np.testing.assert_allclose(signal, expected, atol=1e-6)
    assert capsys.readouterr().err.count("are divided by") == 1


@pytest.mark.parametrize("peak", [10.0, 20_000.0, 1e12])
def test_a_range_that_means_nothing_is_refused(tmp_path, peak):
    signal = tone(1.0, RATE)
    signal[99] = peak
    soundfile.write(tmp_path / "spike.wav", signal, RATE, "FLOAT")
    with pytest.raises(SkillError, match=r"spike\.wav: its samples reach .*; full scale is 1"):
        audio.read_recording(tmp_path / "spike.wav")


def test_lossy_and_integer_files_keep_their_level(tmp_path):
    for kind in ("wav", "flac", "ogg", "mp3"):
        soundfile.write(tmp_path / f"a.{kind}", tone(1.0, RATE), RATE)
        peak = np.abs(audio.read_recording(tmp_path / f"a.{kind}")).max()
        assert peak == pytest.approx(0.3, abs=0.02)


def flac_that_claims(samples: int, path: Path, content: int = 16_000) -> None:
    """A valid FLAC file whose header gives another length."""
    soundfile.write(path, np.zeros(content), RATE, "PCM_16")
    head = bytearray(path.read_bytes())
    packed = int.from_bytes(head[18:26], "big") >> 36 << 36 | samples
    head[18:26] = packed.to_bytes(8, "big")
    path.write_bytes(head)


def test_rate_channels_and_length_are_bounded_before_reading(tmp_path):
    flac_that_claims((1 << 36) - 1, tmp_path / "long.flac")
    soundfile.write(tmp_path / "slow.wav", np.zeros(30_000), 1)
    soundfile.write(tmp_path / "many.wav", np.zeros((4, 200)), RATE)
    soundfile.write(tmp_path / "none.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "hours.flac", np.zeros(4000 * 3600 * 4, np.int16), 4000)
    for name, words in (
        ("long.flac", "longer than 3 hours"), ("slow.wav", "1 Hz is not within"),
        ("many.wav", "200 channels"), ("none.wav", "no audio"),
        ("hours.flac", "longer than 3 hours"),
    ):  # fmt: skip
        tracemalloc.start()
        with pytest.raises(SkillError, match=f"{name}.*{words}"):
            audio.read_recording(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
        tracemalloc.stop()
    flac_that_claims(RATE * 3600, tmp_path / "less.flac")
    with pytest.raises(SkillError, match=r"less\.flac: (truncated|not readable)"):
        audio.read_recording(tmp_path / "less.flac")


def test_pipes_devices_and_folders_are_no_recordings(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    for path, words in ((tmp_path / "pipe.wav", "no regular file"), (tmp_path, "is a folder"),
                        (Path("/dev/zero"), "no regular file")):  # fmt: skip
        with pytest.raises(SkillError, match=words):
            audio.read_recording(path)
        with pytest.raises(SkillError, match=words):
            audio.read_segment(Utterance("u", "c", str(path), 0, 10))


def _valid(kind: str, subtype: str | None, rate: int) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.1, (rate // 4, 2)).astype(np.float32)
    soundfile.write(file, noise, rate, subtype, format=kind)
    return file.getvalue()


VALID = [
    _valid("WAV", "PCM_16", RATE), _valid("WAV", "FLOAT", 8000), _valid("FLAC", "PCM_16", RATE),
    _valid("OGG", "VORBIS", RATE), _valid("MP3", None, RATE), _valid("AIFF", "PCM_24", 44_100),
]  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_damaged_recordings_are_read_or_named_and_never_more(tmp_path_factory, data):
    """Bytes changed (mostly of the header), cut out or put in: a signal or a sentence."""
    content = bytearray(data.draw(st.sampled_from(VALID)))
    for _ in range(data.draw(st.integers(0, 4))):
        last = data.draw(st.sampled_from([64, len(content)])) - 1
        content[data.draw(st.integers(0, min(last, len(content) - 1)))] = data.draw(
            st.sampled_from([0, 1, 127, 128, 255]) | st.integers(0, 255)
        )
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(content))] * 2)))
    how = data.draw(st.sampled_from(["keep", "cut", "double", "end"]))
    if how == "cut":
        del content[first:last]
    elif how == "double":
        content[first:first] = content[first:last]
    elif how == "end":
        del content[last:]
    path = tmp_path_factory.mktemp("damaged") / data.draw(st.sampled_from(["a.wav", "a", "a.raw"]))
    path.write_bytes(content)
    tracemalloc.start()
    for read in (
        audio.recording_length,
        audio.read_recording,
        segment_of,
    ):
        try:
            signal = read(path)
        except SkillError as error:
            assert path.name in str(error) and "\n" not in str(error)
        else:
            assert isinstance(signal, int) or (
                signal.dtype == np.float32 and bool(np.isfinite(signal).all())
            )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 << 20
