"""SUPERB's corpora in miniature: folders, names and lists of the real ones, tones for speech."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
WORDS = {"GO": "G OW1", "NO": "N OW1", "ABBA": "AE1 B AH0", "MOON": "M UW1 N", "SEE": "S IY1"}
KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
DOCUMENTS, FOREIGN = 6, 2  # of QUESST: English ones, and Czech ones


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)


def lines(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")


def spoken(text: str, voice: int = 0, seconds: float = 0.0, rate: int = RATE) -> np.ndarray:
    """Each letter is a tone of 0.1 s, higher in other voices; repeated to fill `seconds`."""
    time = np.arange(rate // 10) / rate
    tones = [
        np.sin(2 * np.pi * (200 + 70 * (ord(letter) % 32)) * 1.06**voice * time)
        * np.hanning(len(time))
        for letter in text.upper()
    ]
    noise = np.random.default_rng(voice + len(text))
    samples = np.tile(np.concatenate(tones), max(1, int(np.ceil(10 * seconds / len(text)))))
    samples = samples[: int(seconds * rate)] if seconds else samples
    return 0.2 * samples + 0.01 * noise.normal(size=len(samples))


def librispeech(root: Path) -> None:
    place, words = root / "LibriSpeech", list(WORDS)
    for part, count in (("train-clean-100", 16), ("dev-clean", 4), ("test-clean", 5)):
        rows = []
        for n in range(count):
            text = " ".join(words[(n + k) % len(words)] for k in range(2 + n % 2))
            key = f"{len(part)}-1-{n:04d}"
            write(place / part / str(len(part)) / "1" / f"{key}.flac", spoken(text, n % 3))
            rows.append(f"{key} {text}")
        lines(place / part / str(len(part)) / "1" / f"{len(part)}-1.trans.txt", *rows)
    entries = [f"{word}\t{phones}" for word, phones in WORDS.items()]
    lines(place / "lexicon/librispeech-lexicon-200k-g2p.txt", *entries[:3])
    lines(place / "lexicon/librispeech-lexicon-allothers-g2p.txt", *entries[3:])


def speech_commands(root: Path) -> None:
    base = root / "speech_commands"
    for word in (*KEYWORDS[:3], "bed"):
        for n in range(14):
            name = f"{n * 977:08x}_nohash_0.wav"
            write(base / "speech_commands_v0.01" / word / name, spoken(word, n % 4, 0.5))
    noise = np.random.default_rng(0).normal(0, 0.05, 2 * RATE)
    write(base / "speech_commands_v0.01/_background_noise_/hum.wav", noise)
    for label in (*KEYWORDS[:3], "_unknown_", "_silence_"):
        sound = noise[:RATE] if label == "_silence_" else spoken(label.strip("_"), 2, 0.5)
        write(base / "speech_commands_test_set_v0.01" / label / "0a_nohash_0.wav", sound)


def quesst14(root: Path) -> None:
    base = root / "quesst14Database"
    words = list(WORDS)
    listed: dict[str, list[str]] = {"utterances": [], "dev": [], "eval": []}

    def add(part: str, name: str, text: str, language: str, voice: int) -> None:
        write(base / f"{name}.wav", spoken(text, voice, rate=8000), 8000)
        listed[part].append(f"quesst14Database/{name}.wav {language}")

    for n in range(DOCUMENTS + FOREIGN):
        language = "nnenglish" if n < DOCUMENTS else "czech"
        text = words[n % 5] + words[(n + 2) % 5]
        add("utterances", f"Audio/quesst14_{n:05d}", text, language, 1)
    for part in ("dev", "eval"):
        matches = []
        for n in range(4):
            language = "nnenglish" if n < 3 else "czech"
            name = f"quesst14_{part}_{n:04d}"
            add(part, f"{part}_queries/{name}", words[n], language, 2)
            matches += [
                f"LEXEME quesst14_{d:05d} 1 0.0 1.0 {name} lex <NA> <NA>"
                for d in range(DOCUMENTS + FOREIGN)
                if words[n] in (words[d % 5], words[(d + 2) % 5])
            ]
        lines(base / f"scoring/groundtruth_quesst14_{part}/truth.rttm", *matches)
    for part, rows in listed.items():
        lines(base / f"scoring/language_key_{part}.lst", *rows)


def voxceleb1(root: Path) -> None:
    base = root / "VoxCeleb1"
    rows = []
    for speaker in range(10001, 10007):
        for number in range(1, 4):
            key = f"id{speaker}/abc/0000{number}.wav"
            part = "test" if speaker > 10004 else "dev"
            seconds = 9.0 if (speaker, number) == (10001, 1) else 2.2
            write(base / part / "wav" / key, spoken(f"voice{number}", speaker - 10000, seconds))
            rows.append(f"{number} {key}")
    lines(base / "iden_split.txt", *rows)
    trials = [("1", 5, 1, 5, 2), ("0", 5, 1, 6, 1), ("1", 6, 2, 6, 3), ("0", 5, 3, 6, 3)]
    lines(base / "voxceleb1_test_v2.txt",
          *(f"{same} id1000{a}/abc/0000{m}.wav id1000{b}/abc/0000{n}.wav"
            for same, a, m, b, n in trials))  # fmt: skip


def libri2mix(root: Path) -> None:
    base = root / "Libri2Mix"
    for split, count in (("train", 4), ("dev", 2), ("test", 3)):
        place = base / "diarization/data" / split
        rows: dict[str, list[str]] = {"wav.scp": [], "segments": [], "utt2spk": []}
        for n in range(count):
            first, second = spoken("mamama", n, 1.6), spoken("sisisi", n + 3, 1.3)
            mixed = np.zeros(3 * RATE + 177 * n)
            mixed[: len(first)] += first
            mixed[int((1.1 + 0.1 * n) * RATE) :][: len(second)] += second
            name = f"a{n}_b{n}"
            inside = f"wav16k/max/{split}/mix_both/{name}.wav"
            write(base / inside, mixed)
            rows["wav.scp"].append(f"{name} /elsewhere/Libri2Mix/{inside}")
            for speaker, start, seconds in (("a", 0.0, 1.6), ("b", 1.1 + 0.1 * n, 1.3)):
                key = f"{name}-{speaker}{n}"
                rows["segments"].append(f"{key} {name} {start:.2f} {start + seconds:.2f}")
                rows["utt2spk"].append(f"{key} {speaker}{n}")
        for file, listed in rows.items():
            lines(place / file, *listed)


def fluent_speech_commands(root: Path) -> None:
    base = root / "fluent_speech_commands_dataset"
    intents = ("change language,none,none", "activate,lights,kitchen", "activate,music,none")
    for part, count in (("train", 9), ("valid", 3), ("test", 4)):
        rows = [",path,speakerId,transcription,action,object,location"]
        for n in range(count):
            inside = f"wavs/speakers/s{n % 3}/{part}{n}.wav"
            write(base / inside, spoken(intents[n % 3][:6].replace(",", ""), n % 4))
            rows.append(f"{n},{inside},s{n % 3},x,{intents[n % 3]}")
        lines(base / "data" / f"{part}_data.csv", *rows)


def audio_snips(root: Path) -> None:
    base = root / "audio_snips"
    sentences = (
        ("GO SEE ABBA .", "O O artist O"),
        ("SEE ABBA & MOON NOW", "O artist artist artist timeRange"),
        ("GO NOW", "O timeRange"),
    )
    rows = []
    speakers = {"train": ("Ivy", "Joey", "Kendra"), "valid": ("Amy",), "test": ("Brian", "Emma")}
    for part, names in speakers.items():
        for voice, speaker in enumerate(names):
            for n, (text, slots) in enumerate(sentences):
                key = f"{speaker}-snips-{part}-{n}"
                sound = spoken("".join(filter(str.isalpha, text)), voice)
                write(base / part / f"{key}.wav", sound)
                rows.append(f"{key} BOS {text} EOS\tO {slots} O")
    lines(base / "all.iob.snips.txt", *rows)
    lines(base / "slots.txt", "O", "artist", "city", "timeRange")


def iemocap(root: Path) -> None:
    base = root / "IEMOCAP_full_release"
    emotions = ("neu", "exc", "hap", "ang", "sad", "fru")
    for session in range(1, 6):
        dialog = f"Ses0{session}F_impro01"
        rows = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        paths = []
        for n, emotion in enumerate(emotions):
            key = f"{dialog}_{'FM'[n % 2]}00{n}"
            inside = f"Session{session}/sentences/wav/{dialog}/{key}.wav"
            write(base / inside, spoken(emotion, session, 0.5))
            rows.append(f"[6.29 - 8.23]\t{key}\t{emotion}\t[2.5, 2.5, 2.5]")
            paths += [inside] if emotion != "fru" else []
        lines(base / f"Session{session}/dialog/EmoEvaluation/{dialog}.txt", *rows)
        listed = {"labels": {}, "meta_data": [{"path": path} for path in reversed(paths)]}
        lines(base / f"meta_data/Session{session}/test_meta_data.json", json.dumps(listed))


ALL = (librispeech, speech_commands, quesst14, voxceleb1, libri2mix, fluent_speech_commands,
       audio_snips, iemocap)  # fmt: skip


def make(root: Path, corpora: Sequence[object] = ALL) -> None:
    """All corpora below `root`."""
    for corpus in corpora:
        corpus(root)  # type: ignore[operator]
