"""The layouts of SUPERB's labelled corpora: from a corpus's folder to its recordings, by its lists.

A recording's `text` holds what the task needs: speech_commands the class; fluent_speech_commands
`action;object;location`; audio_snips `WORD/slot WORD/slot …`; iemocap the emotion; libri2mix
`speaker:start:end …` in seconds; quesst14, of a document, the queries that match it. `split` is the
official one; of iemocap, all is `train`, because its folds are its five sessions; of quesst14,
documents are `train`, queries `dev` and `test`. What lists say and what lies there must fit.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path

from skill.data import audio
from skill.data.corpora import omissions
from skill.data.corpora.superb_files import required_files
from skill.data.manifest import RATE
from skill.utils.errors import SkillError
from skill.utils.files import read_json
from skill.utils.text import read_csv, read_fields, read_lines

KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
UNKNOWN, SILENCE = "_unknown_", "_silence_"
EMOTIONS = {"neu": "neu", "hap": "hap", "exc": "hap", "ang": "ang", "sad": "sad"}
_MODULUS = 2**27


@dataclass(frozen=True)
class Recording:
    """A recording that a corpus should have, and what its lists say of it.

    `listed` is the row that names it; `key` its id, by default from its place.
    """

    path: Path
    split: str
    text: str = ""
    speaker: str = ""
    key: str = ""
    listed: str = ""
    language: str = "en"


def visible(root: Path, pattern: str) -> list[Path]:
    """Files of `pattern` below `root`, sorted; what begins with a dot is no part of a corpus."""
    return sorted(
        p for p in root.glob(pattern) if not any(n[0] == "." for n in p.relative_to(root).parts)
    )


def keyword_split(filename: str) -> str:
    """`train`, `dev`, or `` (discarded: 10 to 20 %), by the SHA-1 of the speaker's prefix."""
    prefix = re.sub(r"_nohash_.*$", "", filename)
    share = int(sha1(prefix.encode()).hexdigest(), 16) % _MODULUS * (100.0 / (_MODULUS - 1))
    return "dev" if share < 10 else "" if share < 20 else "train"


def _speech_commands(root: Path) -> Iterator[Recording]:
    training, test = (
        root / f"speech_commands_{part}v0.01" for part in ("", "test_set_")
    )  # the archive of the test set has a folder per class, the other one a folder per word
    recordings = visible(training, "[!_]*/*.wav")
    test_recordings = visible(test, "*/*.wav")
    if not recordings or not test_recordings:
        return
    for path in recordings:
        word, split = path.parent.name, keyword_split(path.name)
        if split:
            label = word if word in KEYWORDS else UNKNOWN
            yield Recording(path, split, label, path.name.partition("_nohash_")[0])
    noises = visible(training, "_background_noise_/*.wav")
    if not noises:
        raise SkillError(f"{training}/_background_noise_ has no *.wav, of which silence is made")
    for path in noises:
        try:
            long_enough = audio.recording_length(path) > RATE
        except SkillError:
            long_enough = True  # reported by `build`
        for split in ("train", "dev") if long_enough else ():
            yield Recording(path, split, SILENCE, path.stem, f"{split}-{path.stem}")
    for path in test_recordings:
        label = path.parent.name
        if label not in (*KEYWORDS, UNKNOWN, SILENCE):
            raise SkillError(f"{path.parent}: no class of the test set")
        yield Recording(path, "test", label, path.name.partition("_nohash_")[0])
    absent = {*KEYWORDS, UNKNOWN, SILENCE} - {path.parent.name for path in test_recordings}
    omissions.report(
        "speech_commands", "classes without a recording in the test set", sorted(absent)
    )


def _voxceleb1(root: Path) -> Iterator[Recording]:
    listed, split_of = root / "iden_split.txt", {"1": "train", "2": "dev", "3": "test"}
    paths = visible(root, "*/wav/id*/*/*.wav")
    if not paths:
        return
    splits = {}
    for where, (number, key) in read_fields(listed, 2):
        if number not in split_of:
            raise SkillError(f"{where}: {number!r} is no split (1, 2 or 3)")
        splits[key] = split_of[number]
    for path in paths:
        key = "/".join(path.parts[-3:])
        if key not in splits:
            raise SkillError(f"{listed.name} does not list {key}")
        yield Recording(path, splits[key], speaker=path.parts[-3], key=key)
    absent = sorted(splits.keys() - {"/".join(path.parts[-3:]) for path in paths})
    omissions.report("voxceleb1", f"in {listed.name}, but not there", absent)
    if omissions.too_many(len(absent), len(splits)):
        raise SkillError(f"{listed} lists {len(absent)} recordings that are not there")


def verification_trials() -> list[tuple[bool, str, str]]:
    """(same speaker, first, second) of the official list.

    Raises:
        SkillError: the list is missing, or a line of it is no trial.
    """
    (listed,) = required_files("asv", "voxceleb1")
    trials = []
    for where, (label, first, second) in read_fields(listed, 3):
        if label not in ("0", "1"):
            raise SkillError(f"{where}: {label!r} is neither 0 nor 1")
        trials.append((label == "1", first, second))
    return trials


def _fluent(root: Path) -> Iterator[Recording]:
    slots = ("action", "object", "location")
    for split, part in (("train", "train"), ("dev", "valid"), ("test", "test")):
        listed = root / "data" / f"{part}_data.csv"
        for number, row in enumerate(read_csv(listed, ("path", "speakerId", *slots)), 2):
            label, where = ";".join(row[slot] for slot in slots), f"{listed}, row {number}"
            if not row["path"] or label.count(";") != 2:
                raise SkillError(f"{where}: no path, or a slot with a semicolon")
            path = _below(root, Path(row["path"]), "wavs", where)
            yield Recording(path, split, label, row["speakerId"], listed=where)


_SNIPS_SPEAKERS = {
    "train": "Ivy Joanna Joey Justin Kendra Kimberly Matthew Salli",
    "dev": "Aditi Amy Geraint Nicole",
    "test": "Brian Emma Raveena Russell",
}
_SNIPS_FOLDERS = {"train": "train", "dev": "valid", "test": "test"}


def _snips(root: Path) -> Iterator[Recording]:
    listed = root / "all.iob.snips.txt"
    texts = {}
    for number, line in enumerate(read_lines(listed), 1):
        words, _, slots = line.partition("\t")
        tokens, labels = words.split(), slots.split()
        if len(tokens) != len(labels) + 1:
            if line.strip():
                raise SkillError(f"{listed}, line {number}: words and slots do not match")
            continue
        pairs = list(zip(tokens[1:], labels, strict=True))[1:-1]
        texts[tokens[0]] = " ".join(f"{word.upper()}/{slot}" for word, slot in pairs)
    unlisted, absent = [], set(texts)
    for split, speakers in _SNIPS_SPEAKERS.items():
        place = root / _SNIPS_FOLDERS[split]  # released as MP3, often converted
        files = {path.stem: path for kind in ("mp3", "wav") for path in visible(place, f"*.{kind}")}
        absent -= files.keys()
        for _, path in sorted(files.items()):
            speaker = path.stem.partition("-")[0]
            if path.stem not in texts:
                unlisted.append(path.name)
            elif speaker in speakers.split():
                yield Recording(path, split, texts[path.stem], speaker)
    omissions.report("audio_snips", f"not in {listed.name}", unlisted)
    omissions.report("audio_snips", f"in {listed.name}, but not there", sorted(absent))


def slot_names(path: Path) -> list[str]:
    """The slots of Audio SNIPS's slots.txt, whose first line is `O`: no slot.

    Raises:
        SkillError: the file cannot be read, or begins otherwise.
    """
    names = [" ".join(words) for _, words in read_fields(path, 1, 99)]
    if names[:1] != ["O"]:
        raise SkillError(f"{path}: the first line must be `O`")
    return names[1:]


def emotion_list(path: Path) -> list[str]:
    """The utterances of one of s3prl's lists of IEMOCAP, in its order.

    Raises:
        SkillError: the file cannot be read, or is none of those lists.
    """
    try:
        return [Path(row["path"]).stem for row in read_json(path)["meta_data"]]
    except (KeyError, TypeError) as error:
        raise SkillError(f"{path}: no list of IEMOCAP's utterances") from error


_EVALUATION = re.compile(r"^\[[\d.]+ - [\d.]+\]\t(\S+_([FM])\S*)\t(\w+)\t", re.MULTILINE)


def _iemocap(root: Path) -> Iterator[Recording]:
    for session in range(1, 6):
        place = root / f"Session{session}"
        lists = visible(place, "dialog/EmoEvaluation/Ses*.txt")
        if not lists:
            raise SkillError(f"{place}/dialog/EmoEvaluation has no Ses*.txt with emotions")
        for listed in lists:
            for key, voice, emotion in _EVALUATION.findall(listed.read_text("utf-8", "replace")):
                if emotion in EMOTIONS:
                    path = place / "sentences" / "wav" / listed.stem / f"{key}.wav"
                    speaker = f"Ses0{session}{voice}"
                    yield Recording(path, "train", EMOTIONS[emotion], speaker, key, str(listed))


def _libri2mix(root: Path) -> Iterator[Recording]:
    for split in ("train", "dev", "test"):
        place = root / "diarization" / "data" / split
        speakers = {row[0]: row[1] for _, row in read_fields(place / "utt2spk", 2)}
        turns: dict[str, list[str]] = defaultdict(list)
        voices: dict[str, set[str]] = defaultdict(set)
        for where, (key, recording, start, end) in read_fields(place / "segments", 4):
            if key not in speakers:
                raise SkillError(f"{where}: utt2spk does not list {key}")
            if not _is_turn(start, end):
                raise SkillError(f"{where}: {start} to {end} are no seconds of a turn")
            voices[recording].add(speakers[key])
            turns[recording].append(f"{speakers[key]}:{start}:{end}")
        for where, (recording, *path) in read_fields(place / "wav.scp", 2, 99):
            if not 1 <= len(voices[recording]) <= 2:
                count = len(voices[recording])
                raise SkillError(f"{where}: {recording} has {count} speakers, not one or two")
            mixture = _below(root, Path(" ".join(path)), "wav16k", where)
            text = " ".join(turns[recording])
            yield Recording(mixture, split, text, key=f"{split}-{recording}", listed=where)


def _is_turn(start: str, end: str) -> bool:
    try:
        return 0 <= float(start) < float(end) < float("inf")
    except ValueError:
        return False


def _below(root: Path, path: Path, known: str, where: str) -> Path:
    """`path` of a list that was made elsewhere, from its folder `known` on, below `root`."""
    if path.is_absolute() and not path.is_relative_to(root):
        if known not in path.parts:
            raise SkillError(f"{where}: {path} is not below {root}")
        path = Path(*path.parts[path.parts.index(known) :])
    if ".." in path.parts:
        raise SkillError(f"{where}: {path} leads out of the corpus")
    return root / path


def _quesst14(root: Path) -> Iterator[Recording]:
    matches: dict[str, list[str]] = defaultdict(list)
    scoring = root / "scoring"
    for part in ("dev", "eval"):
        for listed in visible(scoring, f"groundtruth_quesst14_{part}/*.rttm"):
            for where, row in read_fields(listed, 1, 99):
                if row[0] == "LEXEME" and len(row) < 6:
                    raise SkillError(f"{where}: {len(row)} words instead of 6 or more")
                if row[0] == "LEXEME":
                    matches[row[1]].append(row[5])
    documents = 0
    for split, part in (("train", "utterances"), ("dev", "dev"), ("test", "eval")):
        for where, (file, language) in read_fields(scoring / f"language_key_{part}.lst", 2):
            # the list begins with the corpus's folder
            path = _below(root, Path(file.partition("/")[2]), "", where)
            queries = sorted(set(matches.get(path.stem, ())))
            documents += split == "train" and bool(queries)
            text = " ".join(queries) if split == "train" else path.stem
            code = "en" if language == "nnenglish" else language
            yield Recording(path, split, text, key=path.stem, listed=where, language=code)
    if not documents:
        raise SkillError(f"{scoring}/groundtruth_quesst14_*/*.rttm: no match of a document")


LAYOUTS: dict[str, tuple[Callable[[Path], Iterable[Recording]], str]] = {
    "speech_commands": (
        _speech_commands,
        "speech_commands_v0.01/WORD/*.wav and speech_commands_test_set_v0.01/CLASS/*.wav",
    ),
    "voxceleb1": (
        _voxceleb1,
        "iden_split.txt, and dev/wav/idNNNNN/VIDEO/*.wav and test/wav/idNNNNN/VIDEO/*.wav",
    ),
    "fluent_speech_commands": (_fluent, "data/{train,valid,test}_data.csv with rows"),
    "audio_snips": (_snips, "all.iob.snips.txt, and {train,valid,test}/SPEAKER-*.{mp3,wav}"),
    "iemocap": (_iemocap, "Session{1…5}/dialog/EmoEvaluation/Ses*.txt with emotions"),
    "libri2mix": (_libri2mix, "diarization/data/{train,dev,test}/wav.scp with rows"),
    "quesst14": (_quesst14, "scoring/language_key_*.lst with rows"),
}
"""{kind: its layout, and what it looks for in words}."""
