"""The command `predict` on files of all kinds."""

import json

import numpy as np
import pytest
import soundfile
import tone_corpus
from tone_corpus import WORDS, evaluated

from skill.superb import predict
from skill.superb.predict import pieces, read_audio
from skill.utils.errors import SkillError

corpus, encoder = tone_corpus.corpus, tone_corpus.encoder


def said(capsys):
    return json.loads(capsys.readouterr().out)


KEYS = {"pr": "phones", "ks": "ks", "sd": "turns", "asv": "similarity", "sf": "slots"}


def test_predict_on_other_rates_channels_and_lengths(corpus, tmp_path, capsys):
    evaluated(corpus, tmp_path, "sid")
    evaluated(corpus, tmp_path, "asr")
    samples, _ = soundfile.read(corpus / "tones.flac")
    one = samples[: int(0.55 * 16000)]
    hiss = 0.3 * np.sin(2 * np.pi * 7000 * np.arange(len(one)) / 16000)
    soundfile.write(tmp_path / "mine.wav", one + hiss, 16000)  # above the corpora's band
    stereo = np.stack([np.repeat(one, 3)] * 2, axis=1)
    soundfile.write(tmp_path / "stereo 48k.wav", stereo, 48000)
    soundfile.write(tmp_path / "long.wav", np.tile(one, 100), 16000)
    files = [tmp_path / name for name in ("mine.wav", "stereo 48k.wav", "long.wav")]
    predict.run("sid", files, tmp_path / "sid.safetensors", None, as_json=True)
    entries = said(capsys)
    assert [entry["seconds"] for entry in entries] == [0.55, pytest.approx(0.55, abs=0.01), 55]
    assert {tuple(entry["sid"]) for entry in entries[::2]} == {("voice0",)}
    predict.run("asr", files[:1], tmp_path / "asr.safetensors", None)
    assert capsys.readouterr().out.startswith(f"{files[0]}\t")
    with pytest.raises(SkillError, match="is a head of sid, not of asr"):
        predict.run("asr", files, tmp_path / "sid.safetensors", None)


def test_predict_on_an_hour_of_stereo_at_8_khz_and_on_mp3(corpus, tmp_path, capsys):
    evaluated(corpus, tmp_path, "sid")
    samples, _ = soundfile.read(corpus / "tones.flac")
    one = samples[: int(0.55 * 16000)]
    soundfile.write(tmp_path / "mine.mp3", np.repeat(one, 3), 48000)
    hour = np.tile(np.stack([one[::2]] * 2, axis=1), (6546, 1))
    soundfile.write(tmp_path / "hour.wav", hour, 8000)
    files = [tmp_path / "mine.mp3", tmp_path / "hour.wav"]
    predict.run("sid", files, tmp_path / "sid.safetensors", None, as_json=True)
    entries = said(capsys)
    assert [entry["seconds"] for entry in entries] == pytest.approx([0.55, 3600.3], abs=0.1)
    assert tuple(entries[0]["sid"]) == ("voice0",)


@pytest.mark.parametrize("task", KEYS)
def test_predict_says_what_the_task_says(corpus, tmp_path, capsys, task):
    evaluated(corpus, tmp_path, task, steps=10, eval_every=10, learning_rates=[1e-2])
    samples, _ = soundfile.read(corpus / "tones.flac")
    files = [tmp_path / "a b.wav", tmp_path / "c.ogg"]
    soundfile.write(files[0], samples[:32000], 16000)
    soundfile.write(files[1], samples[40000:72000], 16000)
    predict.run(task, files, tmp_path / f"{task}.safetensors", None, as_json=True)
    entries = said(capsys)
    assert [set(entry) for entry in entries] == [{"file", "seconds", KEYS[task]}] * 2
    found = [entry[KEYS[task]] for entry in entries]
    if task == "asv":
        assert found[0] == pytest.approx(1) and -1 <= found[1] <= 1
    if task == "ks":
        assert all(set(names) <= set(WORDS) for names in found)
    if task == "sd":
        assert all(0 <= t["start"] < t["end"] <= 2.02 for turns in found for t in turns)
        soundfile.write(files[0], np.tile(samples[:32000], 11), 16000)
        with pytest.raises(SkillError, match=r"a b\.wav: 22 s are too long for sd"):
            predict.run(task, files, tmp_path / "sd.safetensors", None)
        return
    predict.run(task, files, tmp_path / f"{task}.safetensors", None)
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == [
        str(file) for file in files
    ]


def test_predict_refuses_other_heads_and_names_bad_files(corpus, encoder, tmp_path):
    evaluated(corpus, tmp_path, "sid", steps=20, eval_every=20)
    evaluated(corpus, tmp_path, "qbe")
    good, bad = tmp_path / "good.wav", tmp_path / "bad.wav"
    samples, _ = soundfile.read(corpus / "tones.flac")
    soundfile.write(good, samples[:16000], 16000)
    head = tmp_path / "sid.safetensors"
    with pytest.raises(SkillError, match="spk: unknown task; there are pr, asr"):
        predict.run("spk", [good], head, None)
    with pytest.raises(SkillError, match="not a head for this upstream"):
        predict.run("sid", [good], head, encoder)
    with pytest.raises(SkillError, match="qbe has no head"):
        predict.run("qbe", [good], tmp_path / "qbe.safetensors", None)
    with pytest.raises(SkillError, match=r"none\.safetensors"):
        predict.run("sid", [good], tmp_path / "none.safetensors", None)
    broken = np.full(16000, np.nan, dtype=np.float32)
    for signal, words in ((broken, "not a number"), (np.zeros(0), "no audio in it"),
                          (np.zeros((9000, 2)), "silent")):  # fmt: skip
        soundfile.write(bad, signal, 16000, subtype="FLOAT")
        with pytest.raises(SkillError, match=rf"bad\.wav: .*{words}"):
            predict.run("sid", [good, bad], head, None)
    bad.write_bytes(good.read_bytes()[:30])
    for path, words in ((bad, "not readable as audio"), (tmp_path, "is a folder")):
        with pytest.raises(SkillError, match=f"{path.name}: {words}"):
            predict.run("sid", [path], head, None)


def test_predict_refuses_bad_audio_in_words(tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(SkillError, match=r"text\.wav: not readable as audio"):
        read_audio(tmp_path / "text.wav")
    soundfile.write(tmp_path / "quiet.wav", np.zeros(16000), 16000)
    with pytest.raises(SkillError, match=r"quiet\.wav: the recording is silent"):
        read_audio(tmp_path / "quiet.wav")
    soundfile.write(tmp_path / "short.wav", np.ones(100), 16000)
    with pytest.raises(SkillError, match=r"short\.wav: 0\.006 s"):
        read_audio(tmp_path / "short.wav")
    with pytest.raises(SkillError, match=r"none\.wav: the file is missing"):
        read_audio(tmp_path / "none.wav")


def test_pieces_are_cut_where_it_is_quiet():
    samples = np.ones(16000 * 50, dtype=np.float32)
    for second in (7, 13, 31):
        samples[second * 16000 : second * 16000 + 4800] = 0
    parts = pieces(samples)
    assert sum(len(part) for part in parts) == len(samples)
    assert len(parts[0]) == pytest.approx(13.15 * 16000, abs=2400)
    assert max(len(part) for part in parts) <= 20 * 16000
