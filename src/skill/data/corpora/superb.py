"""The labelled corpora of SUPERB in their official layouts: manifests, without decoding audio.

Each lies in its folder of SKILL_CORPORA (`FOLDERS`). A manifest's `text` holds what the task needs:
speech_commands the class; fluent_speech_commands `action;object;location`; audio_snips
`WORD/slot WORD/slot …`; iemocap the emotion; libri2mix `speaker:start:end …` in seconds; quesst14,
of a document, the queries that match it; voxceleb1 the samples that are left without silences.
`split` is the official one; of iemocap, all is `train`, because its folds are its five sessions; of
quesst14, documents are `train`, queries `dev` and `test`. Recordings of other rates, channels or
formats count as they will be read, at 16 kHz mono.
"""

import csv
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha1
from pathlib import Path

from skill.data import audio, effects
from skill.data.corpora.superb_files import needed
from skill.data.manifest import RATE, Utterance, write_manifest
from skill.utils.errors import SkillError
from skill.utils.files import read_json

FOLDERS = {
    "librispeech": "LibriSpeech",
    "speech_commands": "speech_commands",
    "voxceleb1": "VoxCeleb1",
    "fluent_speech_commands": "fluent_speech_commands_dataset",
    "audio_snips": "audio_snips",
    "iemocap": "IEMOCAP_full_release",
    "libri2mix": "Libri2Mix",
    "quesst14": "quesst14Database",
}
GATED = {
    "voxceleb1": "apply at https://www.robots.ox.ac.uk/~vgg/data/voxceleb/",
    "iemocap": "apply at https://sail.usc.edu/iemocap/",
    "fluent_speech_commands": "accept the licence at https://fluent.ai",
}
KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
UNKNOWN, SILENCE = "_unknown_", "_silence_"
EMOTIONS = {"neu": "neu", "hap": "hap", "exc": "hap", "ang": "ang", "sad": "sad"}
_MODULUS = 2**27
_READERS = 8  # threads that decode VoxCeleb1


def folder(kind: str, name: str = "") -> Path:
    """The corpus's folder in SKILL_CORPORA.

    Raises:
        SkillError: it is not there; the message says where to get the corpus and where to put it.
    """
    given = os.environ.get("SKILL_CORPORA")
    place = Path(given or "$SKILL_CORPORA") / FOLDERS[kind]
    if given and place.is_dir():
        return place
    hint = f"; it is not freely available: {GATED[kind]}" if kind in GATED else ""
    unset = "" if given else " (the variable is not set)"
    raise SkillError(f"corpus {name or kind}: expected in {place}{unset}{hint}")


def build(kind: str, name: str, manifest: Path) -> None:
    """Write the manifest of the corpus `kind` under the name `name`.

    Raises:
        SkillError: a folder or list is missing, or a file is no audio.
    """
    place = folder(kind, name)
    utterances = list(LAYOUTS[kind](name, place))
    if not utterances:
        raise SkillError(f"corpus {name}: no audio found in {place}")
    write_manifest(manifest, utterances)


def _row(
    name: str, root: Path, path: Path, split: str, text: str = "", speaker: str = "",
    key: str = "",
) -> Utterance:  # fmt: skip
    """The row of an audio file below `root`."""
    try:
        length = audio.recording_length(path)
    except SkillError as error:
        raise SkillError(f"corpus {name}: {error}") from error
    inside = path.relative_to(root.parent).as_posix()
    return Utterance(
        key or path.relative_to(root).with_suffix("").as_posix().replace("/", "-"),
        name, inside, 0, length, speaker=speaker, text=text, split=split,
    )  # fmt: skip


def _lines(path: Path) -> list[list[str]]:
    try:
        return [line.split() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise SkillError(f"{path}: {error.strerror}") from error


def keyword_split(filename: str) -> str:
    """`train`, `dev`, or `` (discarded: 10 to 20 %), by the SHA-1 of the speaker's prefix."""
    prefix = re.sub(r"_nohash_.*$", "", filename)
    share = int(sha1(prefix.encode()).hexdigest(), 16) % _MODULUS * (100.0 / (_MODULUS - 1))
    return "dev" if share < 10 else "" if share < 20 else "train"


def _speech_commands(name: str, root: Path) -> Iterator[Utterance]:
    training, test = (
        root / f"speech_commands_{part}v0.01" for part in ("", "test_set_")
    )  # the archive of the test set has a folder per class, the other one a folder per word
    for path in sorted(training.glob("[!_]*/*.wav")):
        word, split = path.parent.name, keyword_split(path.name)
        if split:
            label = word if word in KEYWORDS else UNKNOWN
            yield _row(name, root, path, split, label, path.name.partition("_nohash_")[0])
    for path in sorted((training / "_background_noise_").glob("*.wav")):
        length = audio.recording_length(path)
        for split in ("train", "dev") if length > RATE else ():
            yield _row(name, root, path, split, SILENCE, path.stem, f"{split}-{path.stem}")
    for path in sorted(test.glob("*/*.wav")):
        yield _row(name, root, path, "test", path.parent.name, path.name.partition("_nohash_")[0])


def _voxceleb1(name: str, root: Path) -> Iterator[Utterance]:
    splits = {
        key: {"1": "train", "2": "dev", "3": "test"}[number]
        for number, key in _lines(root / "iden_split.txt")
    }

    def row(path: Path) -> Utterance:
        key = "/".join(path.parts[-3:])
        if key not in splits:
            raise SkillError(f"corpus {name}: iden_split.txt does not list {key}")
        found = _row(name, root, path, splits[key], speaker=path.parts[-3], key=key)
        return replace(found, text=str(len(effects.voiced(audio.read_recording(path)))))

    with ThreadPoolExecutor(_READERS) as pool:
        yield from pool.map(row, sorted(root.glob("*/wav/id*/*/*.wav")))


def verification_trials() -> list[tuple[bool, str, str]]:
    """(same speaker, first, second) of the official list."""
    (listed,) = needed("asv", "voxceleb1")
    rows = _lines(listed)
    return [(label == "1", first, second) for label, first, second in rows]


def _fluent(name: str, root: Path) -> Iterator[Utterance]:
    for split, part in (("train", "train"), ("dev", "valid"), ("test", "test")):
        listed = root / "data" / f"{part}_data.csv"
        if not listed.is_file():
            raise SkillError(f"corpus {name}: {listed} is missing")
        with listed.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                label = ";".join(row[slot] for slot in ("action", "object", "location"))
                yield _row(name, root, root / row["path"], split, label, row["speakerId"])


_SNIPS_SPEAKERS = {
    "train": "Ivy Joanna Joey Justin Kendra Kimberly Matthew Salli",
    "dev": "Aditi Amy Geraint Nicole",
    "test": "Brian Emma Raveena Russell",
}
_SNIPS_FOLDERS = {"train": "train", "dev": "valid", "test": "test"}


def _snips(name: str, root: Path) -> Iterator[Utterance]:
    listed = root / "all.iob.snips.txt"
    if not listed.is_file():
        raise SkillError(f"corpus {name}: {listed} is missing")
    texts = {}
    for line in listed.read_text("utf-8").splitlines():
        words, _, slots = line.partition("\t")
        key, *tokens = words.split()
        labels = slots.split()
        if len(tokens) != len(labels):
            raise SkillError(f"corpus {name}: {listed}: {key}: words and slots do not match")
        pairs = list(zip(tokens, labels, strict=True))[1:-1]
        texts[key] = " ".join(f"{word}/{slot}" for word, slot in pairs)
    for split, speakers in _SNIPS_SPEAKERS.items():
        place = root / _SNIPS_FOLDERS[split]  # released as MP3, often converted
        files = {path.stem: path for kind in ("mp3", "wav") for path in place.glob(f"*.{kind}")}
        for _, path in sorted(files.items()):
            speaker = path.stem.partition("-")[0]
            if speaker in speakers.split() and path.stem in texts:
                yield _row(name, root, path, split, texts[path.stem], speaker)


def slot_names(path: Path) -> list[str]:
    """The slots of Audio SNIPS's slots.txt, whose first line is `O`: no slot.

    Raises:
        SkillError: the file cannot be read, or begins otherwise.
    """
    names = [" ".join(fields) for fields in _lines(path)]
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


_EVALUATION = re.compile(r"^\[[\d.]+ - [\d.]+\]\t(\S+)\t(\w+)\t", re.MULTILINE)


def _iemocap(name: str, root: Path) -> Iterator[Utterance]:
    for session in range(1, 6):
        place = root / f"Session{session}"
        for listed in sorted((place / "dialog" / "EmoEvaluation").glob("Ses*.txt")):
            for key, emotion in _EVALUATION.findall(listed.read_text("utf-8", "replace")):
                if emotion in EMOTIONS:
                    path = place / "sentences" / "wav" / listed.stem / f"{key}.wav"
                    speaker = f"Ses0{session}{key.rpartition('_')[2][0]}"
                    yield _row(name, root, path, "train", EMOTIONS[emotion], speaker, key)


def _libri2mix(name: str, root: Path) -> Iterator[Utterance]:
    for split in ("train", "dev", "test"):
        place = root / "diarization" / "data" / split
        speakers = {row[0]: row[1] for row in _lines(place / "utt2spk")}
        turns = defaultdict(list)
        for key, recording, start, end in _lines(place / "segments"):
            turns[recording].append(f"{speakers[key]}:{start}:{end}")
        for recording, *path in _lines(place / "wav.scp"):
            found = _below(name, root, Path(" ".join(path)), "wav16k")
            text = " ".join(turns[recording])
            yield _row(name, root, found, split, text, key=f"{split}-{recording}")


def _below(name: str, root: Path, path: Path, known: str) -> Path:
    """`path` of a list that was made elsewhere, from its folder `known` on, below `root`."""
    if path.is_absolute() and not path.is_relative_to(root):
        if known not in path.parts:
            raise SkillError(f"corpus {name}: {path} is not below {root}")
        path = Path(*path.parts[path.parts.index(known) :])
    return root / path


def _quesst14(name: str, root: Path) -> Iterator[Utterance]:
    matches: dict[str, list[str]] = defaultdict(list)
    scoring = root / "scoring"
    for part in ("dev", "eval"):
        for listed in sorted((scoring / f"groundtruth_quesst14_{part}").glob("*.rttm")):
            for fields in _lines(listed):
                if fields[0] == "LEXEME":
                    matches[fields[1]].append(fields[5])
    for split, part in (("train", "utterances"), ("dev", "dev"), ("test", "eval")):
        for file, language in _lines(scoring / f"language_key_{part}.lst"):
            path = root / file.partition("/")[2]  # the list begins with the corpus's folder
            text = " ".join(sorted(set(matches[path.stem]))) if split == "train" else path.stem
            utterance = _row(name, root, path, split, text, key=path.stem)
            spoken = "en" if language == "nnenglish" else language
            yield replace(utterance, language=spoken)


LAYOUTS: dict[str, Callable[[str, Path], Iterable[Utterance]]] = {
    "speech_commands": _speech_commands,
    "voxceleb1": _voxceleb1,
    "fluent_speech_commands": _fluent,
    "audio_snips": _snips,
    "iemocap": _iemocap,
    "libri2mix": _libri2mix,
    "quesst14": _quesst14,
}
