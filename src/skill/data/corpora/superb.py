"""Manifests of SUPERB's labelled corpora where they lie, without decoding audio.

Each lies in its folder of SKILL_CORPORA (`FOLDERS`) in its official layout
(`skill.data.corpora.superb_layouts`). Recordings of other rates, channels or formats count as they
will be read, at 16 kHz mono. Of voxceleb1, a manifest's `text` is the samples that are left without
silences.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from skill.data import audio, effects
from skill.data.corpora import omissions
from skill.data.corpora.superb_files import FOLDERS, GATED
from skill.data.corpora.superb_layouts import LAYOUTS, Recording
from skill.data.manifest import Utterance, is_writable, write_manifest
from skill.utils.errors import SkillError
from skill.utils.progress import track

_READERS = 8  # threads
_SHOWN = 6  # names of what lies in a folder that holds no corpus


def folder(kind: str, name: str = "") -> Path:
    """The corpus's folder in SKILL_CORPORA.

    Raises:
        SkillError: it is not there; the message says where to get the corpus and where to put it.
    """
    corpora = os.environ.get("SKILL_CORPORA")
    place = Path(corpora or "$SKILL_CORPORA") / FOLDERS[kind]
    if corpora and place.is_dir():
        return place
    hint = f"; it is not freely available: {GATED[kind]}" if kind in GATED else ""
    unset = "" if corpora else " (the variable is not set)"
    raise SkillError(f"corpus {name or kind}: expected in {place}{unset}{hint}")


def build(kind: str, name: str, manifest: Path) -> None:
    """Write the manifest of the corpus `kind` under the name `name`.

    Raises:
        SkillError: a folder, a list or a listed recording is missing, a list does not fit, or more
            than one recording and more than 1 % cannot be read; the message names the first.
    """
    place = folder(kind, name)
    layout, expected = LAYOUTS[kind]
    try:
        recordings = list(layout(place))
    except SkillError as error:
        raise SkillError(f"corpus {name}: {error}") from error
    if not recordings:
        inside = sorted(path.name for path in place.iterdir() if path.name[0] != ".")
        there = ", ".join(inside[:_SHOWN]) + (", …" if len(inside) > _SHOWN else "")
        raise SkillError(
            f"corpus {name}: no audio found in {place}: expected {expected}; "
            f"there: {there or 'nothing'}"
        )
    for recording in recordings:
        if not recording.path.is_file():
            origin = f", which {recording.listed} names," if recording.listed else ""
            raise SkillError(f"corpus {name}: {recording.path}{origin} is missing")
    splits = ["train"] if kind == "iemocap" else ["train", "dev", "test"]
    for split in splits:
        if not any(recording.split == split for recording in recordings):
            raise SkillError(
                f"corpus {name}: no recording of the {split} part: expected {expected}"
            )
    utterances, unreadable = [], []
    with (
        ThreadPoolExecutor(_READERS) as pool,
        track(len(recordings), f"corpora {name}") as progress,
    ):
        rows = pool.map(partial(_row, name, place, kind == "voxceleb1"), recordings)
        for number, row in enumerate(rows, 1):
            if isinstance(row, Utterance):
                utterances.append(row)
            else:
                unreadable.append(row)
            progress.update(number)
    omissions.report_unreadable(name, unreadable, len(recordings))
    write_manifest(manifest, utterances)


def _row(name: str, root: Path, voiced: bool, recording: Recording) -> Utterance | str:
    """The row of a recording below `root`, or why there is none; `voiced`: text is its length."""
    path, text = recording.path, recording.text
    inside = path.relative_to(root)
    key = recording.key or inside.with_suffix("").as_posix().replace("/", "-")
    if not is_writable(f"{inside}{key}{text}"):
        return f"{inside.as_posix()!r}: no name for a manifest"
    try:
        samples = audio.recording_length(path)
        if voiced:
            text = str(len(effects.attenuate_and_trim(audio.read_recording(path))))
    except SkillError as error:
        return str(error)
    return Utterance(
        key, name, f"{root.name}/{inside.as_posix()}", 0, samples,
        speaker=recording.speaker, language=recording.language, text=text, split=recording.split,
    )  # fmt: skip
