"""The verbs `superb`, `size` and `predict` from files to files, on generated tones."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from skill import superb
from skill.config.tasks import configured
from skill.data.corpora.clips import as_pcm, band_limited
from skill.data.manifest import Utterance, read_manifest, write_manifest
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.superb.datasets import folds_of
from skill.superb.metrics import METRICS
from skill.superb.predict import pieces, read_audio
from skill.utils.errors import SkillError
from skill.utils.files import read_csv, read_header, read_json

WORDS = ("SEE", "MOON", "LAW", "KNEE")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Eight voices (pitches) say four words (overtones), several times each."""
    folder = tmp_path_factory.mktemp("corpus")
    generator = np.random.default_rng(0)
    rows, parts, start = [], [], 0
    for voice in range(8):
        for number in range(24):
            word = WORDS[number % 4]
            time = np.arange(int(16000 * generator.uniform(1.0, 1.2))) / 16000
            pitch = 110 * 2 ** (voice / 8)
            tone = np.sin(2 * np.pi * pitch * time)
            tone += 0.7 * np.sin(2 * np.pi * (700 + 600 * WORDS.index(word)) * time)
            signal = 0.2 * tone * np.hanning(len(time)) + 0.003 * generator.normal(size=len(time))
            signal = as_pcm(band_limited(signal, 16000))  # as all converted corpora
            split = "test" if number % 6 == 1 else "dev" if number % 6 == 2 else "train"
            rows.append(
                Utterance(f"v{voice}-{number}", "tones", str(folder / "tones.flac"), start,
                          len(signal), f"voice{voice}", "en", word, split, "synthetic")
            )  # fmt: skip
            parts.append(signal)
            start += len(signal)
    soundfile.write(folder / "tones.flac", np.concatenate(parts), 16000)
    write_manifest(folder / "tones.csv", rows)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(0)
    config = EncoderConfig.uniform("hubert", width=16, blocks=2, heads=2, ffn=32, conv=16)
    folder = tmp_path_factory.mktemp("encoder")
    SpeechEncoder(config).save_pretrained(folder)
    return folder


LABELS = {  # of a word, as the manifests of labelled corpora write them
    "ic": "activate;{};none", "sf": "{}/thing", "er": "{}",
}  # fmt: skip
MOODS = dict(zip(WORDS, ("neu", "hap", "ang", "sad"), strict=True))


def labelled(corpus, folder, task):
    """The same tones with the labels of another task."""
    rows = [
        replace(
            row, text=LABELS[task].format(MOODS[row.text] if task == "er" else row.text),
            speaker=f"Ses0{int(row.speaker[5:]) % 5 + 1}-{row.speaker}",
        ) for row in read_manifest(corpus / "tones.csv")
    ]  # fmt: skip
    write_manifest(folder / f"{task}-tones.csv", rows)
    return folder / f"{task}-tones.csv"


SETTINGS = {
    "pr": {},
    "asr": {"hidden": 16, "recurrent": 16, "recurrent_layers": 1, "spec_augment": False},
    "sid": {"folds": 2, "min_clips": 6, "order": "shuffled", "steps": 300, "eval_every": 100},
    "ks": {"folds": 4, "order": "shuffled", "min_clips": 4},
    "asv": {"hidden": 16, "pooled": 24, "protocol": "clean"},
    "sd": {"recurrent": 16, "train_seconds": 12, "dev_seconds": 8, "test_seconds": 8},
    "qbe": {"dev_seconds": 10, "test_seconds": 10, "prior": 1 / 101},
    "ic": {"steps": 200, "eval_every": 50},
    "sf": {
        "hidden": 16,
        "recurrent": 0,
        "recurrent_layers": 0,
        "spec_augment": False,
        "order": "shuffled",
    },
    "er": {"steps": 100, "eval_every": 50},
}


def evaluated(corpus, folder, task, encoder=None, **changes):
    settings = {"corpora": ["tones"], "bootstrap": 50, **SETTINGS[task]}
    if task != "qbe":
        settings = {"steps": 40, "eval_every": 20, "learning_rates": [1e-2, 1e-3], "batch": 8,
                    "accumulate": 1, **settings}  # fmt: skip
    job = SimpleNamespace(seed=1, task=configured(task, {**settings, **changes}))
    name = "small" if encoder else "fbank"
    output = folder / f"{task}.json"
    manifest = labelled(corpus, folder, task) if task in LABELS else corpus / "tones.csv"
    superb.run(name, task, job, encoder, [manifest], output,
               output.with_suffix(".csv"), output.with_suffix(".safetensors"),
               folder / "scratch" / task)  # fmt: skip
    return read_json(output), read_csv(output.with_suffix(".csv"))


def test_a_second_fold_of_speakers_swaps_development_and_test(corpus):
    settings = {"corpora": ["tones"], **SETTINGS["sid"]}
    utterances = read_manifest(corpus / "tones.csv")
    alone = folds_of(configured("sid", {**settings, "folds": 1}), utterances)
    first, second = folds_of(configured("sid", settings), utterances)
    assert alone == [first]
    assert (second.train, second.dev, second.test) == (first.train, first.test, first.dev)


@pytest.mark.parametrize("task", SETTINGS)
def test_every_sample_task_runs_from_files_to_files(corpus, tmp_path, task):
    result, rows = evaluated(corpus, tmp_path, task)
    assert result["task"] == task and result["upstream"] == "fbank"
    assert result["synthetic"] is True and result["official"] is False
    for name, metric in result["metrics"].items():
        assert metric["low"] <= metric["high"]
        if name != "mtwv":  # a maximum over thresholds: resampling can only favour it
            assert metric["low"] - 1e-6 <= metric["value"] <= metric["high"] + 1e-6
        assert metric["items"] == len(rows) > 0
        voices = {row["cluster"] for row in rows}  # whole voices are resampled, or pairs of them
        assert metric["clusters"] == len(voices) <= len(rows)
        assert all("voice" in voice for voice in voices)
        assert {name, f"{name}_of", "id", "cluster"} <= set(rows[0])
    for fold, rate in enumerate(result.get("learning_rates", ())):  # each by its own dev set
        dev = {row["learning_rate"]: row["dev"][fold] for row in result["sweep"]}
        low_is_good = METRICS[configured(task, {}).selection].low_is_good
        assert dev[rate] == (min if low_is_good else max)(dev.values())
    ids = [row["id"] for row in rows]
    assert ids == sorted(ids) and len(set(ids)) == len(ids)
    header = read_header(tmp_path / f"{task}.safetensors")
    assert header["task"]["name"] == task
    assert not list((tmp_path / "scratch").rglob("*.pt"))
    if task == "sid":
        assert result["metrics"]["accuracy"]["value"] > 60
    if task == "ic":
        assert result["metrics"]["accuracy"]["value"] > 60
        assert result["examples"]["classes"] == [1, 4, 1]
    if task == "er":
        folds = [fold["accuracy"] for fold in result["folds"]]
        assert result["examples"]["test"] == [48, 48, 48, 24, 24]
        assert result["metrics"]["accuracy"]["value"] == pytest.approx(np.mean(folds))
    if task == "qbe":
        assert result["layer"] == 0 and len(rows) == result["metrics"]["mtwv"]["items"]


@pytest.mark.parametrize("protocol", ["superb", "clean"])
def test_both_protocols_of_verification(corpus, tmp_path, protocol):
    result, _ = evaluated(corpus, tmp_path, "asv", protocol=protocol)
    value, best = result["metrics"]["eer"]["value"], result["best_on_test"]["eer"]
    assert result["protocol"] == protocol and 0 <= result["last_checkpoint"]["eer"] <= 100
    assert best <= result["last_checkpoint"]["eer"]
    (speakers,) = result["examples"]["classes"]
    if protocol == "superb":  # chosen where it is tested, as published; all others are heard
        assert value == best and speakers == 6
    else:
        assert value >= best and speakers == 4


@pytest.mark.parametrize("protocol", ["superb", "clean"])
def test_both_protocols_of_diarization(corpus, tmp_path, protocol):
    result, _ = evaluated(corpus, tmp_path, "sd", protocol=protocol)
    values = {name: metric["value"] for name, metric in result["metrics"].items()}
    assert values["der_superb"] <= values["der_clean"]
    assert values["der"] == values[f"der_{protocol}"]


def test_the_same_run_gives_the_same_bytes(corpus, encoder, tmp_path):
    for name in ("one", "two"):
        evaluated(corpus, tmp_path / name, "sid", encoder)
    for suffix in ("json", "csv", "safetensors"):
        first, second = ((tmp_path / n / f"sid.{suffix}").read_bytes() for n in ("one", "two"))
        assert first == second
    weights = read_json(tmp_path / "one" / "sid.json")["state_weights"]
    assert len(weights) == 3 and sum(weights) == pytest.approx(1, abs=1e-4)


def test_folds_hear_no_test_voice(corpus, tmp_path):
    result, rows = evaluated(corpus, tmp_path, "ks")
    assert result["examples"]["test"] == [48] * 4 and len(rows) == 192


def test_a_task_without_its_corpus_says_so(corpus, tmp_path):
    with pytest.raises(SkillError, match="sid: the manifests have no utterance of queen"):
        evaluated(corpus, tmp_path, "sid", corpora=["queen"])
    utterances = read_manifest(corpus / "tones.csv")
    for task, said in (("er", "'SEE' is none of neu, hap, ang, sad"), ("ic", "'SEE' is no `act")):
        with pytest.raises(SkillError, match=f"v0-0: {said}"):
            folds_of(configured(task, {"corpora": ["tones"]}), utterances)


def test_size_of_an_upstream(encoder, tmp_path):
    superb.size("small", encoder, tmp_path / "size.json", lengths=[16000, 32000])
    size = read_json(tmp_path / "size.json")
    assert size["parameters"] > 0 and size["macs"] > 1e6 and size["real_time_factor"] > 0
    superb.size("fbank", None, tmp_path / "fbank.json")
    assert read_json(tmp_path / "fbank.json")["parameters"] == 0


def said(capsys):
    return json.loads(capsys.readouterr().out)


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
    superb.predict("sid", files, tmp_path / "sid.safetensors", None, as_json=True)
    entries = said(capsys)
    assert [entry["seconds"] for entry in entries] == [0.55, pytest.approx(0.55, abs=0.01), 55]
    assert {tuple(entry["sid"]) for entry in entries[::2]} == {("voice0",)}
    superb.predict("asr", files[:1], tmp_path / "asr.safetensors", None)
    assert capsys.readouterr().out.startswith(f"{files[0]}\t")
    with pytest.raises(SkillError, match="is a head of sid, not of asr"):
        superb.predict("asr", files, tmp_path / "sid.safetensors", None)


def test_predict_on_an_hour_of_stereo_at_8_khz_and_on_mp3(corpus, tmp_path, capsys):
    evaluated(corpus, tmp_path, "sid")
    samples, _ = soundfile.read(corpus / "tones.flac")
    one = samples[: int(0.55 * 16000)]
    soundfile.write(tmp_path / "mine.mp3", np.repeat(one, 3), 48000)
    hour = np.tile(np.stack([one[::2]] * 2, axis=1), (6546, 1))
    soundfile.write(tmp_path / "hour.wav", hour, 8000)
    files = [tmp_path / "mine.mp3", tmp_path / "hour.wav"]
    superb.predict("sid", files, tmp_path / "sid.safetensors", None, as_json=True)
    entries = said(capsys)
    assert [entry["seconds"] for entry in entries] == pytest.approx([0.55, 3600.3], abs=0.1)
    assert tuple(entries[0]["sid"]) == ("voice0",)


KEYS = {"pr": "phones", "ks": "ks", "sd": "turns", "asv": "similarity", "sf": "slots"}


@pytest.mark.parametrize("task", KEYS)
def test_predict_says_what_the_task_says(corpus, tmp_path, capsys, task):
    evaluated(corpus, tmp_path, task, steps=10, eval_every=10, learning_rates=[1e-2])
    samples, _ = soundfile.read(corpus / "tones.flac")
    files = [tmp_path / "a b.wav", tmp_path / "c.ogg"]
    soundfile.write(files[0], samples[:32000], 16000)
    soundfile.write(files[1], samples[40000:72000], 16000)
    superb.predict(task, files, tmp_path / f"{task}.safetensors", None, as_json=True)
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
            superb.predict(task, files, tmp_path / "sd.safetensors", None)
        return
    superb.predict(task, files, tmp_path / f"{task}.safetensors", None)
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
        superb.predict("spk", [good], head, None)
    with pytest.raises(SkillError, match="not a head for this upstream"):
        superb.predict("sid", [good], head, encoder)
    with pytest.raises(SkillError, match="qbe has no head"):
        superb.predict("qbe", [good], tmp_path / "qbe.safetensors", None)
    with pytest.raises(SkillError, match=r"none\.safetensors"):
        superb.predict("sid", [good], tmp_path / "none.safetensors", None)
    broken = np.full(16000, np.nan, dtype=np.float32)
    for signal, words in ((broken, "not a number"), (np.zeros(0), "0.000 s of audio are too short"),
                          (np.zeros((9000, 2)), "silent")):  # fmt: skip
        soundfile.write(bad, signal, 16000, subtype="FLOAT")
        with pytest.raises(SkillError, match=rf"bad\.wav: .*{words}"):
            superb.predict("sid", [good, bad], head, None)
    bad.write_bytes(good.read_bytes()[:30])
    for path in (bad, tmp_path):
        with pytest.raises(SkillError, match=f"{path.name}: not readable as audio"):
            superb.predict("sid", [path], head, None)


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
    with pytest.raises(SkillError, match=r"none\.wav: not readable"):
        read_audio(tmp_path / "none.wav")


def test_pieces_are_cut_where_it_is_quiet():
    samples = np.ones(16000 * 50, dtype=np.float32)
    for second in (7, 13, 31):
        samples[second * 16000 : second * 16000 + 800] = 0
    parts = pieces(samples, longest=20.0)
    assert sum(len(part) for part in parts) == len(samples)
    assert len(parts[0]) == pytest.approx(13 * 16000, abs=900)
    assert max(len(part) for part in parts) <= 20 * 16000
