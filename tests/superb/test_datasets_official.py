"""The official corpora in miniature: same folders and files, split rules, vocabularies, errors."""

import json
import re
from hashlib import sha1
from types import SimpleNamespace

import numpy as np
import official_corpora
import pytest
import soundfile
import torch
from torch.utils.data import random_split

from skill.config.params import Corpus
from skill.config.tasks import PROTOCOL, make_task
from skill.data.corpora import librispeech, prepare, superb_layouts
from skill.data.corpora import superb as layouts
from skill.data.corpora.superb_files import required_files
from skill.data.manifest import Utterance, read_manifest
from skill.superb import slots
from skill.superb.datasets import folds_of, official, search_of
from skill.superb.downstream import Transcription
from skill.superb.examples import cacheable, draw
from skill.utils.errors import SkillError


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("SKILL_CORPORA", str(tmp_path / "my corpora"))
    return tmp_path / "my corpora"


def wav(path, seconds=0.2, rate=16000, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(len(str(path))).normal(0, 0.1, (int(seconds * rate), channels))
    soundfile.write(path, samples, rate)


def lines(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")


def folds(kind, tmp_path, task, **settings):
    manifest = tmp_path / f"{kind}.csv"
    layouts.build(kind, kind, manifest)
    return folds_of(make_task(task, settings), read_manifest(manifest))


def test_speech_commands(root, tmp_path):
    base = root / "speech_commands"
    names = [f"{n:08x}_nohash_{n % 2}.wav" for n in range(60)]
    wanted = {}
    for name in names:
        # the rule of the corpus's own README, written the other way round
        share = int(sha1(name.split("_nohash_")[0].encode()).hexdigest(), 16) % 2**27
        share = share * 100 / (2**27 - 1)
        wanted[name] = "dev" if share < 10 else None if share < 20 else "train"
        for word in ("yes", "bed"):
            wav(base / "speech_commands_v0.01" / word / name)
    assert {superb_layouts.keyword_split(n) or None for n in names} == {"dev", "train", None}
    wav(base / "speech_commands_v0.01/_background_noise_/hum.wav", 2.0)
    for label in ("yes", "_unknown_", "_silence_"):
        wav(base / "speech_commands_test_set_v0.01" / label / "0a_nohash_0.wav")
    fold = folds("speech_commands", tmp_path, "ks")[0]
    assert fold.labels[0][-2:] == ("_unknown_", "_silence_") and len(fold.labels[0]) == 12
    spoken = [e for e in fold.train if "yes" in e.id or "bed" in e.id]
    assert len(spoken) == 2 * sum(split == "train" for split in wanted.values())
    assert {e.target for e in spoken if "bed" in e.id} == {(10,)}
    silent = [e for e in fold.train if e.target == (11,)]
    assert [e.samples for e in silent] == [32000]  # one noise, of which training hears excerpts
    drawn = [draw(silent[0], np.random.default_rng(n)) for n in range(400)]
    assert {len(e.read()) for e in drawn[:9]} == {16000} and len({e.id for e in drawn}) > 60
    assert {e.id for e in drawn} <= {e.id for e in cacheable(silent[0])}
    checked = [e for e in fold.dev if e.target == (11,)]
    assert len(checked) == len({e.id for e in checked}) > 3 and len(checked[0].read()) == 16000
    whole, _ = soundfile.read(base / "speech_commands_test_set_v0.01/yes/0a_nohash_0.wav")
    assert fold.test[2].read() == pytest.approx(whole * 10 ** (-3 / 20), abs=1e-7)
    # dev is drawn evenly over the classes, so the few `yes` are as frequent as the silences
    share = np.mean([e.target == (0,) for e in fold.dev])
    assert share == pytest.approx(1 / 3, abs=0.12)
    assert [e.target for e in fold.test] == [(11,), (10,), (0,)]


def speech(seconds, loudness=0.1, seed=0):
    samples = np.random.default_rng(seed).normal(0, loudness, int(seconds * 16000))
    return samples.astype(np.float32)


def voxceleb(root):
    base = root / "VoxCeleb1"
    rows = []
    for speaker in range(10001, 10007):
        for number in range(1, 4):
            key = f"id{speaker}/abc/0000{number}.wav"
            part = "test" if speaker > 10004 else "dev"
            wav(base / part / "wav" / key, 2.1)
            rows.append(f"{number} {key}")
    lines(base / "iden_split.txt", *rows)
    lines(
        base / "voxceleb1_test_v2.txt",
        "1 id10005/abc/00001.wav id10005/abc/00002.wav",
        "0 id10005/abc/00001.wav id10006/abc/00003.wav",
    )


def test_voxceleb_identification(root, tmp_path):
    voxceleb(root)
    fold = folds("voxceleb1", tmp_path, "sid", crop_seconds=1.5, crops=2)[0]
    assert len(fold.labels[0]) == 6
    assert len(fold.train) == 6 and {e.samples for e in fold.train} == {33600}
    assert {len(draw(e, np.random.default_rng(0)).read()) for e in fold.train} == {24000}
    assert [e.id[-9:] for e in fold.dev] == ["00002.wav"] * 6
    assert fold.test[5].target == (5,)


@pytest.mark.parametrize("protocol", ["superb", "clean"])
def test_voxceleb_verification(root, tmp_path, monkeypatch, protocol):
    voxceleb(root)
    monkeypatch.setattr("skill.superb.datasets.official._HELD_OUT_SPEAKERS", 2)
    pause = np.concatenate([speech(2.1), np.zeros(40000), speech(0.5)])
    soundfile.write(root / "VoxCeleb1/dev/wav/id10001/abc/00001.wav", pause, 16000)
    soundfile.write(root / "VoxCeleb1/dev/wav/id10001/abc/00002.wav", pause[30000:], 16000)
    fold = folds("voxceleb1", tmp_path, "asv", protocol=protocol)[0]
    paused = [e for e in (*fold.train, *fold.dev) if e.id.startswith("id10001/abc/00001")]
    assert [e.samples for e in paused] == [len(e.read()) for e in paused]
    assert all(abs(e.samples - 2.6 * 16000) < 1500 for e in paused)
    if protocol == "superb":  # 3 s long, but not without its pause
        assert paused and "id10001/abc/00002.wav" not in {e.id for e in fold.train}
    training = {e.cluster for e in fold.train}
    assert not training & {"id10005", "id10006"}
    assert {e.id for e in fold.test} == {t.first for t in fold.trials["test"]} | {
        t.second for t in fold.trials["test"]
    }
    if protocol == "superb":
        assert len(training) == len(fold.labels[0]) == 4
        assert fold.trials["dev"] == fold.trials["test"]
    else:
        assert len(training) == len(fold.labels[0]) == 2
        assert not training & {e.cluster for e in fold.dev}
        same = [t.same for t in fold.trials["dev"]]
        assert sum(same) > 0 and len(same) == 2 * sum(same)


def test_fluent_speech_commands(root, tmp_path):
    base = root / "fluent_speech_commands_dataset"
    header = ",path,speakerId,transcription,action,object,location"
    rows = ["change language,none,none", "activate,lights,kitchen", "activate,music,none"]
    for part in ("train", "valid", "test"):
        listed = []
        for number, row in enumerate(rows):
            wav(base / f"wavs/speakers/s{number}/{part}{number}.wav")
            listed.append(f"{number},wavs/speakers/s{number}/{part}{number}.wav,s{number},x,{row}")
        lines(base / "data" / f"{part}_data.csv", header, *listed)
    fold = folds("fluent_speech_commands", tmp_path, "ic")[0]
    assert fold.labels[0] == ("change language", "activate")
    assert [e.target for e in fold.test] == [(0, 0, 0), (1, 1, 1), (1, 2, 0)]
    listed = base / "data/test_data.csv"
    listed.write_text(listed.read_text().replace("kitchen", "attic"))
    with pytest.raises(SkillError, match="test1: 'attic' is none of none, kitchen"):
        folds("fluent_speech_commands", tmp_path, "ic")


def test_audio_snips(root, tmp_path):
    base = root / "audio_snips"
    spoken = "BOS play ABBA & friends on youtube , now EOS"
    iob = "O O artist artist artist O service O timeRange O"
    wanted = []
    for part, speaker in (("train", "Ivy"), ("valid", "Amy"), ("test", "Brian"), ("test", "Ivy")):
        key = f"{speaker}-snips-{part}-0"
        wav(base / part / f"{key}.{'mp3' if part == 'valid' else 'wav'}", rate=22050)
        wanted.append(f"{key} {spoken}\t{iob}")
    lines(base / "all.iob.snips.txt", *wanted)
    lines(base / "slots.txt", "O", "artist", "city", "service", "timeRange")
    fold = folds("audio_snips", tmp_path, "sf")[0]
    assert [len(part) for part in (fold.train, fold.dev, fold.test)] == [1, 1, 1]
    assert [len(e.read()) for e in fold.dev] == [fold.dev[0].samples] == [3200]
    target = slots.slot_text(fold.train[0].target)
    assert target == (
        "PLAY B-artist ABBA AND FRIENDS E-artist ON B-service YOUTUBE E-service "
        "B-timeRange NOW E-timeRange"
    )
    downstream = Transcription(PROTOCOL["sf"], fold)
    assert len(downstream.vocabulary) == 3 + 28 + 2 * 4
    counts = downstream.counts(fold.test, [fold.test[0].target])
    assert counts["slot_f1"][0].tolist() == [1] and counts["slot_cer"][0].tolist() == [0]
    lines(base / "slots.txt", "artist", "O")
    with pytest.raises(SkillError, match=r"slots\.txt: the first line must be `O`"):
        folds("audio_snips", tmp_path, "sf")


def test_iemocap(root, tmp_path):
    base = root / "IEMOCAP_full_release"
    for session in range(1, 6):
        dialog = f"Ses0{session}F_impro01"
        rows = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        emotions = ("neu", "exc", "hap", "ang", "sad", "fru", "xxx")
        for number, emotion in enumerate(emotions):
            key = f"{dialog}_{'FM'[number % 2]}00{number}"
            rows.append(f"[6.29 - 8.23]\t{key}\t{emotion}\t[2.5, 2.5, 2.5]")
            wav(base / f"Session{session}/sentences/wav/{dialog}/{key}.wav")
        lines(base / f"Session{session}/dialog/EmoEvaluation/{dialog}.txt", *rows)
        listed = [f"Session{session}/sentences/wav/{dialog}/{dialog}_{'FM'[n % 2]}00{n}.wav"
                  for n in (4, 0, 3, 1, 2)]  # fmt: skip
        rows = {"labels": {}, "meta_data": [{"path": path} for path in listed]}
        lines(base / f"meta_data/Session{session}/test_meta_data.json", json.dumps(rows))
    five = folds("iemocap", tmp_path, "er")
    assert len(five) == 5
    for number, fold in enumerate(five, 1):
        assert {str(e.cluster)[:5] for e in fold.test} == {f"Ses0{number}"}
        assert [len(part) for part in (fold.train, fold.dev, fold.test)] == [16, 4, 5]
        assert [e.target[0] for e in fold.test] == [3, 0, 2, 1, 1]
        rest = [e.id for other in five if other is not fold for e in other.test]
        torch.manual_seed(0)
        train, dev = random_split(rest, [16, 4])
        assert ([e.id for e in fold.train], [e.id for e in fold.dev]) == (list(train), list(dev))
    lines(base / "meta_data/Session5/test_meta_data.json", '{"meta_data": []}')
    with pytest.raises(SkillError, match=r"er: Ses05F_impro01_F000 is in only one of"):
        folds("iemocap", tmp_path, "er")


def test_libri2mix(root, tmp_path):
    base = root / "Libri2Mix"
    for split in ("train", "dev", "test"):
        wav(base / f"wav16k/max/{split}/mix_both/a_b.wav", 3.0)
        place = base / "diarization/data" / split
        made_at = {"dev": "/elsewhere/Libri2Mix/", "test": f"{base}/"}.get(split, "")
        lines(place / "wav.scp", f"a_b {made_at}wav16k/max/{split}/mix_both/a_b.wav")
        lines(place / "segments", "a_b-a a_b 0.00 1.50", "a_b-b a_b 1.00 3.00")
        lines(place / "utt2spk", "a_b-a a", "a_b-b b")
    fold = folds("libri2mix", tmp_path, "sd")[0]
    assert fold.test[0].target == (("a", 0.0, 1.5), ("b", 1.0, 3.0))
    assert fold.test[0].samples == 48000 and fold.test[0].cluster == "a+b"
    lines(base / "diarization/data/dev/wav.scp", "a_b /elsewhere/a_b.wav")
    with pytest.raises(SkillError, match=r"/elsewhere/a_b\.wav is not below"):
        folds("libri2mix", tmp_path, "sd")


def test_quesst14(root, tmp_path):
    base = root / "quesst14Database"
    rttm = "LEXEME {} 1 0.0 1.0 {} lex <NA> <NA>"
    documents = [("00001", "nnenglish"), ("00002", "nnenglish"), ("00003", "czech")]
    documents = [(f"Audio/quesst14_{number}", language) for number, language in documents]
    lists = {"utterances": documents}
    for part in ("dev", "eval"):
        languages = ("nnenglish", "czech", "albanian")
        lists[part] = [(f"{part}_queries/quesst14_{part}_000{n}", language)
                       for n, language in enumerate(languages, 1)]  # fmt: skip
        lines(base / f"scoring/groundtruth_quesst14_{part}/truth.rttm",
              rttm.format("quesst14_00002", f"quesst14_{part}_0001"),
              rttm.format("quesst14_00003", f"quesst14_{part}_0001"),
              rttm.format("quesst14_00003", f"quesst14_{part}_0002"))  # fmt: skip
    for part, rows in lists.items():
        lines(base / f"scoring/language_key_{part}.lst",
              *(f"quesst14Database/{name}.wav {language}" for name, language in rows))  # fmt: skip
        for name, _ in rows:
            wav(base / f"{name}.wav", rate=8000)
    layouts.build("quesst14", "quesst14", tmp_path / "q.csv")
    search = search_of(make_task("qbe", {}), read_manifest(tmp_path / "q.csv"))
    assert [e.id for e in search.documents] == ["quesst14_00001", "quesst14_00002"]
    assert [e.target for e in search.documents] == [
        (), ("quesst14_dev_0001", "quesst14_eval_0001"),
    ]  # fmt: skip
    (query,) = search.queries["dev"]
    assert query.target == "quesst14_dev_0001"
    assert query.samples == len(query.read()) == 3200  # of 0.2 s at 8 kHz
    for split in ("dev", "test"):  # one Czech document; one more query has a match, in it
        rest = search.unscored[split]
        assert (rest.queries, rest.documents, rest.matches.tolist()) == (1, 1, [1])
    english = search_of(make_task("qbe", {"table": "english"}), read_manifest(tmp_path / "q.csv"))
    assert english.documents == search.documents and english.unscored == {}


@pytest.mark.parametrize("kind", layouts.LAYOUTS)
def test_a_missing_corpus_says_where_it_belongs(root, tmp_path, kind):
    with pytest.raises(SkillError, match=re.escape(layouts.FOLDERS[kind])) as caught:
        layouts.build(kind, kind, tmp_path / "m.csv")
    assert (kind in layouts.GATED) == (
        "apply" in str(caught.value) or "licence" in str(caught.value)
    )


def test_no_audio_and_unlisted_audio_are_named(root, tmp_path):
    voxceleb(root)
    for number in (1, 2):
        (root / f"VoxCeleb1/dev/wav/id10001/abc/0000{number}.wav").write_text("nothing")
    with pytest.raises(SkillError, match=r"2 of 18 .*00001\.wav: not readable as audio"):
        layouts.build("voxceleb1", "voxceleb1", tmp_path / "m.csv")
    lines(root / "VoxCeleb1/iden_split.txt", "1 id10002/abc/00001.wav")
    (root / "VoxCeleb1/dev/wav/id10001/abc/00001.wav").unlink()
    with pytest.raises(SkillError, match="does not list id10001"):
        layouts.build("voxceleb1", "voxceleb1", tmp_path / "m.csv")


def commands(root):
    base = root / "speech_commands"
    for word in ("yes", "bed"):
        for number in range(12):
            wav(base / "speech_commands_v0.01" / word / f"{number:08x}_nohash_0.wav")
    wav(base / "speech_commands_v0.01/_background_noise_/hum.wav", seconds=1.5)
    wav(base / "speech_commands_test_set_v0.01/yes/0a_nohash_0.wav")
    return base


def test_an_empty_recording_and_what_macos_leaves_are_left_out(root, tmp_path, capsys):
    base = commands(root)
    layouts.build("speech_commands", "ks", tmp_path / "one.csv")
    soundfile.write(base / "speech_commands_test_set_v0.01/yes/0b_nohash_0.wav", np.zeros(0), 16000)
    for name in ("yes/._0a_nohash_0.wav", ".DS_Store", "._yes/0a_nohash_0.wav"):
        path = base / "speech_commands_v0.01" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"Mac OS X")
    layouts.build("speech_commands", "ks", tmp_path / "two.csv")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    said = capsys.readouterr().err
    assert "left out, unreadable: 1 (" in said and "0b_nohash_0.wav: no audio in it" in said


def test_layouts_that_are_not_the_expected_ones_say_what_is_there(root, tmp_path):
    base = commands(root)
    (base / "speech_commands_v0.01").rename(base / "speech_commands_v0.02")
    with pytest.raises(SkillError, match=r"expected speech_commands_v0\.01/WORD.*v0\.02"):
        layouts.build("speech_commands", "ks", tmp_path / "m.csv")
    wav(root / "VoxCeleb1/id10001/abc/00001.wav")
    with pytest.raises(SkillError, match=r"expected iden_split\.txt, and dev/wav.*there: id10001"):
        layouts.build("voxceleb1", "voxceleb1", tmp_path / "m.csv")
    wav(root / "LibriSpeech/dev-clean/1/2/1-2-0000.wav")
    with pytest.raises(SkillError, match=r"CHAPTER/\*\.flac \(16 kHz mono\); there: 1-2-0000\.wav"):
        librispeech.build("libri", ("dev-clean",), tmp_path / "m.csv")


def fluent(root):
    base = root / "fluent_speech_commands_dataset"
    for part, name in (("train", "b"), ("valid", "c"), ("test", "a")):
        wav(base / f"wavs/{name}.wav")
        lines(base / "data" / f"{part}_data.csv", "path,speakerId,action,object,location",
              f"wavs/{name}.wav,s,go,none,none")  # fmt: skip
    return base / "data/test_data.csv"


def mix(root):
    base = root / "Libri2Mix"
    for split in ("train", "dev", "test"):
        wav(base / f"wav16k/max/{split}/m.wav")
        place = base / "diarization/data" / split
        lines(place / "wav.scp", f"m wav16k/max/{split}/m.wav")
        lines(place / "segments", "m-a m 0.00 1.50", "m-b m 1.00 3.00")
        lines(place / "utt2spk", "m-a a", "m-b b")
    return base / "diarization/data/test"


@pytest.mark.parametrize(("change", "words"), [
    (lambda t: t.replace("speakerId", "speaker"), r"test_data\.csv: no column speakerId; there"),
    (lambda t: t.replace("a.wav,s", "d.wav,s"), r"d\.wav, which .*test_data\.csv, row 2 names,"),
    (lambda t: t.replace(",none,none", ""), r"test_data\.csv, row 2: no object"),
    (lambda t: t.replace("wavs/a.wav", "../a.wav"), "row 2: .*leads out"),
    (lambda t: t.replace("wavs/a.wav", ""), "row 2: no path"),
    (lambda t: t.replace("path,", "\0path,"), "NUL"),
])  # fmt: skip
def test_lists_of_fluent_speech_commands_that_do_not_fit(root, tmp_path, change, words):
    listed = fluent(root)
    listed.write_text(change(listed.read_text()))
    with pytest.raises(SkillError, match=words):
        layouts.build("fluent_speech_commands", "fsc", tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lists_that_were_saved_again(root, tmp_path, encoding, end):
    listed = fluent(root)
    layouts.build("fluent_speech_commands", "fsc", tmp_path / "one.csv")
    listed.write_text(listed.read_text().replace("\n", end), encoding=encoding, newline="")
    layouts.build("fluent_speech_commands", "fsc", tmp_path / "two.csv")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()


@pytest.mark.parametrize(("file", "row", "words"), [
    ("segments", "m-c m 0.1 0.2", "utt2spk does not list m-c"),
    ("segments", "m-a m 2.0 1.0", "line 3: 2.0 to 1.0 are no seconds"),
    ("segments", "m-a m x 1.0", "line 3: x to 1.0"),
    ("segments", "m-a m", "line 3: 2 words instead of 4"),
    ("wav.scp", "n wav16k/max/test/m.wav", "line 2: n has 0 speakers"),
    ("wav.scp", "m /elsewhere/m.wav", "line 2: /elsewhere/m.wav is not below"),
])  # fmt: skip
def test_lists_of_libri2mix_that_do_not_fit(root, tmp_path, file, row, words):
    with (mix(root) / file).open("a") as listed:
        listed.write(row + "\n")
    with pytest.raises(SkillError, match=words):
        layouts.build("libri2mix", "sd", tmp_path / "m.csv")


def test_a_third_speaker_and_an_unknown_class_are_named(root, tmp_path):
    place = mix(root)
    lines(place / "segments", "m-a m 0 1", "m-b m 1 2", "m-c m 2 3")
    lines(place / "utt2spk", "m-a a", "m-b b", "m-c c")
    with pytest.raises(SkillError, match=r"wav\.scp, line 1: m has 3 speakers, not one or two"):
        layouts.build("libri2mix", "sd", tmp_path / "m.csv")
    rows = [
        Utterance("u", "c", "p", 0, 9, text=text) for text in ("a:0:1 b:0:1 c:0:1", "a:x:1", "")
    ]
    for row, words in zip(
        rows, ("3 speakers", "no `speaker:start:end`", "0 speakers"), strict=True
    ):
        with pytest.raises(SkillError, match=words):
            official.diarization(make_task("sd", {}), [row])
    base = commands(root)
    wav(base / "speech_commands_test_set_v0.01/maybe/0a_nohash_0.wav")
    with pytest.raises(SkillError, match="maybe: no class of the test set"):
        layouts.build("speech_commands", "ks", tmp_path / "m.csv")
    with pytest.raises(SkillError, match="u: 'maybe' is none of"):
        official.keywords(make_task("ks", {}), [Utterance("u", "c", "p", 0, 9, text="maybe")])


def remove(place, pattern):
    for path in sorted(place.glob(pattern)):
        path.unlink()


@pytest.mark.parametrize(("corpus", "change", "words"), [
    ("librispeech", ("LibriSpeech", "dev-clean/*/*/*.flac"), "expected .*dev-clean/SPEAKER/CH"),
    ("speech_commands", ("speech_commands", "*/_back*/*"), "_background_noise_ has no .*wav"),
    ("speech_commands", ("speech_commands", "*test_set*/*/*"), "there: speech_commands_test_set"),
    ("voxceleb1", ("VoxCeleb1", "test/wav/*/*/*"), r"iden_split\.txt lists 6 recordings that are"),
    ("audio_snips", ("audio_snips", "valid/*"), "no recording of the dev part"),
    ("iemocap", ("IEMOCAP_full_release", "Session4/dialog/*/*"), "Session4/dialog.* has no Ses"),
    ("quesst14", ("quesst14Database", "scoring/*/*.rttm"), "rttm: no match of a document"),
])  # fmt: skip
def test_a_part_that_is_missing_is_named(root, tmp_path, corpus, change, words):
    """Before a manifest is written, and not by the task that finds no examples."""
    getattr(official_corpora, corpus)(root)
    remove(root / change[0], change[1])
    parts = {"parts": ("train-clean-100", "dev-clean")} if corpus == "librispeech" else {}
    with pytest.raises(SkillError, match=words):
        prepare.run("c", Corpus(kind=corpus, **parts), tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()


def test_an_empty_list_is_no_part(root, tmp_path):
    (mix(root).parent / "dev/wav.scp").write_text("")
    with pytest.raises(SkillError, match="no recording of the dev part"):
        layouts.build("libri2mix", "sd", tmp_path / "m.csv")


def test_floats_that_are_no_numbers_are_left_out_of_official_corpora(root, tmp_path, capsys):
    """As of folders: the next job would refuse them."""
    official_corpora.fluent_speech_commands(root)
    path = sorted((root / "fluent_speech_commands_dataset/wavs").glob("**/*.wav"))[0]
    soundfile.write(path, np.full(8000, np.nan, np.float32), 16000, subtype="FLOAT")
    layouts.build("fluent_speech_commands", "ic", tmp_path / "m.csv")
    assert f"{path.name}: a sample is not a number" in capsys.readouterr().err
    assert path.name not in (tmp_path / "m.csv").read_text()


@pytest.mark.parametrize("place", ["dev-clean", "LibriSpeech/LibriSpeech/dev-clean"])
def test_librispeech_beside_its_place_is_not_fetched_again(root, tmp_path, place):
    (root / place).mkdir(parents=True)
    with pytest.raises(SkillError, match=r"dev-clean is expected in .*LibriSpeech/dev-clean$"):
        prepare.run("c", Corpus(kind="librispeech", parts=("dev-clean",)), tmp_path / "m.csv")


def test_librispeech_uses_the_two_lexicons(root):
    place = root / "LibriSpeech/lexicon"
    with pytest.raises(SkillError, match=r"pr needs .*200k-g2p\.txt, .* from s3prl/"):
        required_files("pr", "librispeech")
    lines(place / "librispeech-lexicon-200k-g2p.txt", "HELLO\tHH AH0 L OW1", "HELLO\tHH EH0 L OW1")
    lines(place / "librispeech-lexicon-allothers-g2p.txt", "ZYX\tZ IH1 K S")
    utterances = [
        SimpleNamespace(id=f"{split}{said}", corpus="librispeech", samples=16000, text=said,
                        split=split, speaker="1", language="en", kind="human")
        for split in ("train", "dev", "test") for said in ("hello zyx", "hello nobody")
    ]  # fmt: skip
    assert required_files("pr", "librispeech") == sorted(place.iterdir()) and not required_files(
        "pr", "queen"
    )
    fold = folds_of(make_task("pr", {}), utterances)[0]
    assert [e.target for e in fold.test] == [["HH", "AH0", "L", "OW1", "Z", "IH1", "K", "S"]]
    assert fold.left_out == {"a word is not in the dictionary": 3}
