"""From sources to one audio file and a manifest: containers, packages, folders, synthesis."""

import gzip
import hashlib
import io
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from skill.config.load import read_yaml
from skill.config.params import Corpus
from skill.config.tasks import make_task
from skill.data import splits
from skill.data.audio import read_segment
from skill.data.corpora import asterisk, debian, espeak, folder, hedgewars, prepare, queen, tones
from skill.data.corpora.clips import BAND_RATE, Clip, band_limit, split_at_pauses, to_pcm
from skill.data.manifest import RATE, Utterance, read_manifest
from skill.data.transcripts import transcript
from skill.superb.datasets import folds_of
from skill.superb.datasets.aligned import ALIGNED
from skill.utils.disk import need_space
from skill.utils.errors import SkillError

ROOT = Path(__file__).parents[2]
SECOND = np.sin(np.arange(BAND_RATE) * 0.3).astype(np.float32) * 0.4


def mp3(seconds: float = 1.0) -> bytes:
    file = io.BytesIO()
    signal = SECOND[: int(seconds * BAND_RATE)]
    soundfile.write(file, signal, BAND_RATE, "MPEG_LAYER_III", format="MP3")
    return file.getvalue()


def bank(number: int, joe: list[tuple[int, str]], other: list[tuple[int, str]]) -> bytes:
    """A dialogue bank with one level, as the game lays it out."""
    parts = []
    for texts in (joe, other):
        part = b""
        for key, text in texts:
            part += struct.pack(">IB", key, len(text)) + text.encode()
            part += bytes(-len(part) % 4)
        parts.append(part)
    start = 32 + 96
    head = struct.pack(">5h", -1, number, number, len(joe), len(other)).ljust(22, b"\0")
    head += struct.pack(">H", start + len(parts[0]))
    return b"AmBk".ljust(20, b"\0") + head.ljust(start, b"\0") + b"".join(parts)


def scene(texts: list[str]) -> bytes:
    head = struct.pack(">2h2hH", 2, -len(texts), 0, 0, 40).ljust(40, b"\0") + b"\0"
    for text in texts:
        head += bytes([len(text)]) + text.encode()
        head += bytes(len(head) % 2)
    return b"AmBk".ljust(20, b"\0") + head


def container(files: dict[str, bytes]) -> bytes:
    offset = 15 + 21 * len(files)
    table, body = b"", b""
    for name, content in files.items():
        table += struct.pack(">12sBII", name.encode(), 1, offset + len(body), len(content))
        body += content
    return b"QTBLCEM10\0\0\0\x01" + struct.pack(">H", len(files)) + table + body


def game() -> bytes:
    remarks = [f"line {i}" for i in range(1230)]
    remarks[1187] = "It doesn't seem to open*03"
    remarks[5] = "Salvation?*06The small print*03"
    sound = mp3()
    names = ["020006J1", "020006P2", "02SSSSJ1", "02XXXXJ1", "020010P1", "02FFFFJ1"]
    names += ["JOE00011", "JOE00461", "JOE00462", "C18B_021", "C18B_022", "1000SSSS", "020011P1"]
    return container(
        {
            "BOB2.DOG": bank(
                2,
                [(0, "Hello, Bob.*03"), (6, "Mr. King isn't here*24")],
                [(0, "Me again*02"), (6, "*FLNo way!*03"), (16, "Grrrr!"), (17, "Route 66")],
            ),
            "C18B.CUT": scene(["*FR", "*FLOver here, Joe King!*01", "no"]),
            "QUEEN2.JAS": "\r\n".join(remarks).encode(),
            **{f"{name}.SB": sound for name in names},
        }
    )


def test_queen_reads_its_container_script_and_speakers(tmp_path: Path):
    path = tmp_path / "queen.1c"
    path.write_bytes(game())
    found = {clip.id: clip for clip in queen.clips({queen.PATH: path})}
    assert list(found) == sorted(found)
    assert {key: (clip.speaker, clip.text) for key, clip in found.items()} == {
        "queen-020006J1": ("joe", "MISTER KING ISN'T HERE"),
        "queen-020006P2": ("bob", "NO WAY"),
        "queen-02SSSSJ1": ("joe", "HELLO BOB"),
        "queen-02XXXXJ1": ("joe", "ME AGAIN"),
        "queen-020010P1": ("bob", ""),
        "queen-020011P1": ("bob", ""),
        "queen-02FFFFJ1": ("joe", ""),
        "queen-JOE00011": ("joe", "IT DOESN'T SEEM TO OPEN"),
        "queen-JOE00461": ("joe", "SALVATION"),
        "queen-JOE00462": ("joe", "THE SMALL PRINT"),
        "queen-C18B_021": ("", ""),
        "queen-C18B_022": ("", "OVER HERE JOE KING"),
    }
    signal, rate = found["queen-020006J1"].load()
    assert rate == BAND_RATE and abs(len(signal) / rate - 1) < 0.2
    assert 0.2 < np.abs(signal).max() < 0.35  # 0.4, scaled by 0.7


@pytest.mark.parametrize(
    ("damaged", "said"),
    [(b"RIFF" + game()[4:], "not a QTBL"), (game()[:-50], "truncated"), (game()[:90], "truncated")],
)
def test_a_damaged_container_is_named(tmp_path: Path, damaged: bytes, said: str):
    path = tmp_path / "queen.1c"
    path.write_bytes(damaged)
    with pytest.raises(SkillError, match=said) as error:
        list(queen.clips({queen.PATH: path}))
    assert "queen.1c" in str(error.value)


def g722(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = (np.sin(np.arange(int(seconds * RATE)) * 0.2) * 9000).astype(np.int16)
    with av.open(str(path), "w", format="g722") as file:
        stream = file.add_stream("g722", rate=RATE)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate = RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            file.mux(packet)


def prompts(root: Path) -> dict[str, dict[str, Path]]:
    files: dict[str, dict[str, Path]] = {}
    for language in asterisk.LANGUAGES:
        inside = {}
        for name in ("hello", "beep", "digits/1", "silence/1"):
            path = root / language / f"{name}.g722"
            g722(path, 0.5)
            inside[f"usr/share/asterisk/sounds/xx_Voice/{name}.g722"] = path
        script = root / f"{language}.txt"
        script.write_text("\ufeff; comment\nhello: Él está, you.\nbeep: [a beep]\n", "utf-8")
        files[f"asterisk-core-sounds-{language}-g722"] = inside
        files[f"asterisk-core-sounds-{language}"] = {"core.txt": script}
    return files


def test_asterisk_reads_prompts_and_transcripts(tmp_path: Path):
    found = list(asterisk.clips(prompts(tmp_path)))
    assert [clip.id for clip in found[:2]] == ["asterisk-en-digits/1", "asterisk-en-hello"]
    assert len(found) == 10
    assert found[1].text == ""  # not English
    assert found[3].text == "ÉL ESTÁ YOU" and found[3].language == "es"
    signal, rate = found[1].load()
    assert rate == RATE and len(signal) == RATE // 2 and 0.2 < np.abs(signal).max() < 0.35
    with pytest.raises(SkillError, match=r"none\.g722"):
        asterisk.decoded(tmp_path / "none.g722")
    with (tmp_path / "long.g722").open("wb") as file:
        file.truncate(8000 * 3 * 3600 + 1)
    with pytest.raises(SkillError, match=r"long\.g722: longer than 3 hours"):
        asterisk.decoded(tmp_path / "long.g722")
    (tmp_path / "latin.txt").write_bytes(b"name: caf\xe9")
    with pytest.raises(SkillError, match=r"latin\.txt: not UTF-8"):
        asterisk.transcripts(tmp_path / "latin.txt")


def test_hedgewars_keeps_voices_apart(tmp_path: Path):
    files = {}
    for pack in ("British", "Default_es", "Pirate", "Robot", "Surfer"):
        for phrase in ("Hello", "Uh-oh"):
            path = tmp_path / f"{pack}-{phrase}.ogg"
            soundfile.write(path, np.zeros((22_050, 2)), 44_100, format="OGG")
            files[f"usr/x/Sounds/voices/{pack}/{phrase}.ogg"] = path
    found = list(hedgewars.clips(files))
    assert {clip.text for clip in found} == {"HELLO", "UHOH"}
    assert {clip.speaker: clip.language for clip in found}["default_es"] == "es"
    assert {clip.split for clip in found} == {"train", "dev", "test"}
    assert len({(clip.speaker, clip.split) for clip in found}) == 5
    assert len(band_limit(*found[0].load())) in (BAND_RATE // 2, BAND_RATE // 2 + 1)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("  Well, \u201cit\u2019s\u201d over-here...", "WELL IT'S OVER HERE"),
        ("'Kilroy' was here", "KILROY WAS HERE"),
        ("Dr. No & Mrs. King", "DOCTOR NO AND MISSUS KING"),
        ("Route 66", ""),
        ("[monkeys]", ""),
        ("oh@@no", ""),
        ("Ungh ungh, oopfg!", ""),
        ("Grrrrr", ""),
        ("...", ""),
        ("Ça va", ""),
    ],
)
def test_transcripts_hold_words_or_nothing(said: str, text: str):
    assert transcript(said) == text
    assert transcript(text) == text


def test_splits_are_fixed_and_near_their_shares():
    found = [splits.by_text(f"sentence {i}") for i in range(5000)]
    assert splits.by_text("HELLO AGAIN") == splits.by_text("HELLO AGAIN")
    assert {s: round(found.count(s) / 500) for s in set(found)} == {"train": 8, "dev": 1, "test": 1}
    assert splits.by_speaker(["a", "b", "c"]) == splits.by_speaker(["c", "a", "b", "a"])
    assert sorted(splits.by_speaker(map(str, range(15))).values()).count("test") == 2


def test_everything_is_band_limited():
    noise = np.random.default_rng(0).normal(0, 0.1, (4 * 44_100, 2)).astype(np.float32)
    pcm = to_pcm(band_limit(noise, 44_100)).astype(np.float64)
    power = np.abs(np.fft.rfft(pcm)) ** 2
    frequency = np.fft.rfftfreq(len(pcm), 1 / RATE)
    assert power[frequency > 5600].mean() < 1e-5 * power[frequency < 4800].mean()
    assert abs(len(pcm) - 4 * RATE) <= 1


def test_long_clips_are_cut_where_it_is_quiet():
    signal = np.tile(SECOND, 40)
    signal[12 * BAND_RATE : 13 * BAND_RATE] = 0
    parts = split_at_pauses(signal, BAND_RATE)
    assert np.array_equal(np.concatenate(parts), signal)
    assert max(map(len, parts)) <= 15 * BAND_RATE and min(map(len, parts)) > BAND_RATE
    assert 12 * BAND_RATE <= len(parts[0]) <= 13 * BAND_RATE
    assert split_at_pauses(SECOND, BAND_RATE)[0] is SECOND


def job(kind: str, **other: object) -> Corpus:
    return Corpus.model_validate({"kind": kind, **other})


def test_synthetic_speech_has_all_labels_and_the_same_bytes(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        where = f"{name}/results/beeps"
        section = job("synthetic", speakers=4, sentences=12)
        prepare.run("beeps", section, f"{where}.csv", f"{where}.flac")
    first, second = ((tmp_path / name / "results/beeps.flac").read_bytes() for name in "ab")
    assert first == second
    rows = read_manifest("a/results/beeps.csv")
    assert rows == [replace(row, path=rows[0].path) for row in read_manifest("b/results/beeps.csv")]
    assert rows[0].path == "a/results/beeps.flac"
    assert len(rows) == 48 and {row.kind for row in rows} == {"synthetic"}
    assert all(row.text for row in rows)
    for split in ("train", "dev", "test"):
        assert len({row.speaker for row in rows if row.split == split}) == 4
        assert {row.split for row in rows if row.text == rows[0].text} == {rows[0].split}
    assert [row.start for row in rows[1:]] == np.cumsum([row.samples for row in rows])[:-1].tolist()
    loud = [float(np.abs(read_segment(row)).max()) for row in rows]
    assert min(loud) > 0.1 and max(loud) < 0.9
    assert all(word in tones._LEXICON for row in rows for word in row.text.split())


def folder_corpus(root: Path, broken: int = 0, good: int = 20) -> None:
    for index in range(good):
        place = root / f"speaker {index % 3}"
        place.mkdir(parents=True, exist_ok=True)
        soundfile.write(place / f"{index}.wav", np.tile(SECOND, 1 + index % 2), BAND_RATE)
        (place / f"{index}.txt").write_text(f"hello {'abcdefghijklmnopqrstuv'[index]}")
    soundfile.write(root / "short.ogg", SECOND[:2000], BAND_RATE)
    for index in range(broken):
        (root / f"broken{index}.flac").write_bytes(b"nothing")


def test_a_folder_serves_where_there_are_no_packages(tmp_path: Path, monkeypatch, capsys):
    folder_corpus(tmp_path / "my audio")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKILL_CORPORA", "my audio")
    monkeypatch.setattr(debian, "missing_tools", lambda: ["dpkg-deb"])
    prepare.run("queen", job("queen"), "q.csv", "q.flac")
    assert "from the folder my audio" in capsys.readouterr().err
    rows = read_manifest("q.csv")
    assert len(rows) == 20
    assert {row.speaker for row in rows} == {f"speaker {index}" for index in range(3)}
    assert rows[0].text.startswith("HELLO") and rows[0].kind == "human"
    assert len(read_segment(rows[0])) in (RATE, 2 * RATE)


def test_broken_files_are_left_out_or_too_many(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKILL_CORPORA", str(tmp_path / "audio"))
    with pytest.raises(SkillError, match=r"SKILL_CORPORA is .*audio, which is no folder"):
        prepare.run("mine", job("folder"), "m.csv", "m.flac")
    folder_corpus(tmp_path / "audio/other")
    with pytest.raises(SkillError, match=r"corpus mine: its audio is expected in .*audio/mine"):
        prepare.run("mine", job("folder"), "m.csv", "m.flac")
    folder_corpus(tmp_path / "audio/mine", broken=2)
    with pytest.raises(SkillError, match=r"2 of 23 recordings cannot be read .*broken0"):
        prepare.run("mine", job("folder"), "m.csv", "m.flac")
    assert not list(tmp_path.glob("*.csv")) and not list(tmp_path.glob("*.flac"))
    assert not list(tmp_path.glob(".*"))
    (tmp_path / "audio/mine/broken1.flac").unlink()
    capsys.readouterr()
    prepare.run("mine", job("folder"), "m.csv", "m.flac")
    said = capsys.readouterr().err
    assert said.count("broken0") >= 1 and "1 unreadable" in said and "1 shorter" in said
    assert len(read_manifest("m.csv")) == 20


def test_missing_input_says_what_to_do(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SKILL_CORPORA", raising=False)
    monkeypatch.setenv("SKILL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SkillError, match="SKILL_CORPORA is not set"):
        prepare.run("mine", job("folder"), "m.csv", "m.flac")
    monkeypatch.setattr(debian, "missing_tools", lambda: ["dpkg-deb"])
    monkeypatch.setattr(prepare, "find_spec", lambda name: None)
    with pytest.raises(SkillError, match=r"no dpkg-deb .*: put audio .* SKILL_CORPORA"):
        prepare.run("queen", job("queen"), "q.csv", "q.flac")
    (tmp_path / "empty/mine").mkdir(parents=True)
    monkeypatch.setenv("SKILL_CORPORA", str(tmp_path / "empty"))
    with pytest.raises(SkillError, match="no audio file"):
        prepare.run("queen", job("queen"), "q.csv", "q.flac")
    with pytest.raises(SkillError, match="needs an audio file"):
        prepare.run("queen", job("queen"), "q.csv", None)
    with pytest.raises(SkillError, match="no disk space: corpus x needs"):
        need_space(tmp_path, 1 << 60, "corpus x")


def test_a_full_disk_is_an_error_in_words(tmp_path: Path, monkeypatch):
    class Full(soundfile.SoundFile):
        def write(self, data: object) -> None:
            raise soundfile.LibsndfileError(2, "Error writing: ")

    monkeypatch.setattr(soundfile, "SoundFile", Full)
    clips = [Clip("a", lambda: (SECOND, BAND_RATE))]
    with pytest.raises(SkillError, match=r"x\.flac: cannot be written"):
        prepare.store("c", clips, "human", tmp_path / "x.flac")
    assert not list(tmp_path.iterdir())


def deb(folder: Path, files: dict[str, bytes], version: str = "1-1") -> Path:
    """A real Debian package made with dpkg-deb."""
    root = folder / "tree"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        f"Package: tiny\nVersion: {version}\nArchitecture: all\nMaintainer: x <x@x.x>\n"
        "Description: tiny\n"
    )
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    path = folder / f"tiny_{version}_all.deb"
    subprocess.run(["dpkg-deb", "-b", str(root), str(path)], check=True, capture_output=True)
    return path


@pytest.fixture
def package(tmp_path: Path, monkeypatch) -> dict[str, bytes]:
    """What the package `tiny` holds; apt-get is replaced, dpkg-deb is the real one."""
    if debian.missing_tools():
        pytest.skip("dpkg-deb is not installed")
    files = {"usr/a.txt": b"alpha", "usr/b.txt.gz": gzip.compress(b"beta"), "usr/other": b"x"}
    archive = deb(tmp_path / "work", files)
    table = {"usr/a.txt": b"alpha", "usr/b.txt": b"beta"}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in table.items()}
    monkeypatch.setattr(debian, "checksums", lambda: {"tiny": sums})
    monkeypatch.setattr(debian, "_download", lambda names, work: {"tiny": _copied(archive, work)})
    monkeypatch.setenv("SKILL_CACHE", str(tmp_path / "the cache"))
    return sums


def _copied(archive: Path, work: Path) -> Path:
    copy = work / archive.name
    copy.write_bytes(archive.read_bytes())
    return copy


def test_only_listed_files_are_taken_and_only_once(package, tmp_path: Path, monkeypatch):
    found = debian.files_of(["tiny"])["tiny"]
    assert found["usr/a.txt"].read_bytes() == b"alpha"
    assert found["usr/b.txt"].read_bytes() == b"beta"
    home = tmp_path / "the cache" / "packages"
    assert sorted(p.name for p in home.rglob("*") if p.is_file()) == [".lock", "a.txt", "b.txt"]
    monkeypatch.setattr(debian, "_download", None)
    assert debian.files_of(["tiny"])["tiny"] == found
    found["usr/b.txt"].write_bytes(b"other")
    with pytest.raises(SkillError, match=r"b\.txt is not the file of data/checksums\.csv: delete"):
        debian.files_of(["tiny"])
    found["usr/a.txt"].unlink()
    with pytest.raises(SkillError, match=r"a\.txt is missing: delete"):
        debian.files_of(["tiny"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"usr/a.txt": "0" * 64}, r"usr/a\.txt is not the file .*wrong SHA-256"),
        ({"usr/c.txt": "0" * 64}, r"usr/c\.txt is not in this version"),
    ],
)
def test_wrong_content_is_named_and_leaves_nothing(package, tmp_path, change, said):
    package.update(change)
    with pytest.raises(SkillError, match=said):
        debian.files_of(["tiny"])
    assert [p.name for p in (tmp_path / "the cache/packages").iterdir()] == [".lock"]


def test_a_damaged_package_is_named(package, monkeypatch, tmp_path):
    def damaged(names: list[str], work: Path) -> dict[str, Path]:
        path = work / "tiny_1-1_all.deb"
        path.write_bytes(b"!<arch>\nrubbish")
        return {"tiny": path}

    monkeypatch.setattr(debian, "_download", damaged)
    with pytest.raises(SkillError, match=r"tiny_1-1_all\.deb"):
        debian.files_of(["tiny"])


@pytest.mark.parametrize("bomb", [True, False])
def test_packed_files_of_other_content_are_named(package, monkeypatch, tmp_path, bomb):
    """A gzip of 2 GB, and one that is damaged inside."""
    packed = gzip.compress(bytes(1 << 20)) * 2000 if bomb else bytearray(gzip.compress(b"b" * 99))
    if isinstance(packed, bytearray):
        packed[10:14] = b"\xff" * 4
    archive = deb(tmp_path / "bad", {"usr/b.txt.gz": bytes(packed)})
    monkeypatch.setattr(debian, "_download", lambda names, work: {"tiny": _copied(archive, work)})
    monkeypatch.setattr(debian, "_LARGEST_FILE", 1 << 24)
    with pytest.raises(SkillError, match=r"b\.txt is not the file|not a readable Debian package"):
        debian.files_of(["tiny"])


@pytest.mark.parametrize("kind", ["wav", "aiff", "ogg", "mp3", "flac"])
def test_a_truncated_file_of_a_folder_is_an_error_and_a_whole_one_is_not(tmp_path: Path, kind: str):
    path = tmp_path / f"tone.{kind}"
    soundfile.write(path, 0.1 * np.sin(np.arange(48_000) / 5), 16_000)
    signal, rate = next(iter(folder.clips("mine", tmp_path))).load()
    assert rate == BAND_RATE and len(signal) == pytest.approx(3 * BAND_RATE, rel=0.05)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SkillError, match=r"tone.*(truncated|not readable as audio)"):
        next(iter(folder.clips("mine", tmp_path))).load()


def test_a_wav_whose_length_was_not_known_when_it_was_begun_is_whole(tmp_path: Path):
    path = tmp_path / "piped.wav"
    soundfile.write(path, SECOND, BAND_RATE)
    sizes = bytearray(path.read_bytes())
    for place in (4, sizes.index(b"data") + 4):
        sizes[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(sizes)
    assert len(next(iter(folder.clips("mine", tmp_path))).load()[0]) == BAND_RATE


@pytest.mark.parametrize(
    ("apt", "said"),
    [
        (
            "echo 'Err: Temporary failure resolving host' >&2; exit 100",
            "no network: .*SKILL_CORPORA",
        ),
        ("echo 'E: Unable to locate package tiny' >&2; exit 100", "tiny: apt-get does not find"),
        ("echo 'E: Write error - write (28: No space left on device)'; exit 1", "no disk space"),
    ],
)
def test_apt_failures_are_words(tmp_path: Path, monkeypatch, apt: str, said: str):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("apt-get", "dpkg-deb"):
        (tools / name).write_text(f"#!/bin/sh\n{apt}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    monkeypatch.setenv("SKILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(debian, "checksums", lambda: {"tiny": {"usr/a": "0" * 64}})
    with pytest.raises(SkillError, match=said):
        debian.files_of(["tiny"])
    assert not debian.is_cached(["tiny"])


def test_every_packaged_corpus_is_listed_with_its_checksums():
    table = debian.checksums()
    for _, names in prepare._PACKAGED.values():
        for name in names:
            assert table[name]
            assert all(len(sha) == 64 for sha in table[name].values())


def test_the_verb_is_light_to_import():
    code = "import skill.data.manifest, sys; sys.exit(bool({'torch', 'av'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_espeak_is_the_last_resort_and_marked(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SKILL_CORPORA", raising=False)
    monkeypatch.setenv("SKILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(debian, "missing_tools", lambda: ["dpkg-deb"])
    monkeypatch.setattr(prepare, "find_spec", lambda name: True)
    monkeypatch.setattr(espeak, "clips", lambda name: [Clip("a", lambda: (SECOND, BAND_RATE))])
    prepare.run("queen", job("queen"), "q.csv", "q.flac")
    assert "SYNTHETIC" in capsys.readouterr().err
    assert [row.kind for row in read_manifest("q.csv")] == ["synthetic"]


def test_what_espeak_says_serves_every_task_of_the_sample_scale():
    """Speakers, phrases and splits are enough; nothing has to be spoken to know it."""
    tasks = read_yaml(ROOT / "params.yaml")["superb"]["tasks"]
    for name, settings in tasks.items():
        task = make_task(name, settings)
        if name in ALIGNED:  # of real recordings
            continue
        utterances = [
            Utterance(
                id=clip.id, corpus=corpus, path="a.flac", start=0, samples=40_000,
                speaker=clip.speaker, language="en", text=clip.text, split=clip.split,
                kind="synthetic",
            )
            for corpus in task.corpora
            for clip in espeak.clips(corpus)
        ]  # fmt: skip
        for fold in folds_of(task, utterances):
            assert fold.train and fold.dev and fold.test


def test_espeak_says_the_same_bytes_every_time():
    pytest.importorskip("espeakng_loader")
    clip = next(iter(espeak.clips("q")))
    first, rate = clip.load()
    assert rate == 22_050 and 1 < len(first) / rate < 4 and np.abs(first).max() > 0.1
    assert np.array_equal(first, clip.load()[0])
    with pytest.raises(SkillError, match="no voice"):
        espeak.speak("hello", "nobody+m99")
