"""Copies of utterances at other speeds, so that hours of few voices sound like more voices.

Playing faster or slower moves pitch and formants along, as in Kaldi's recipes (Ko et al. 2015,
"Audio augmentation for speech recognition").
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import soundfile
import soxr

from skill.data.audio import read_segment
from skill.data.corpora.clips import to_pcm
from skill.data.manifest import RATE, Utterance, read_manifest, write_manifest
from skill.utils.files import replacing
from skill.utils.progress import track


def at_other_speeds(
    utterances: Sequence[Utterance], speeds: Sequence[float], folder: Path, dependencies: str
) -> list[Utterance]:
    """One copy of each utterance at each of `speeds`; audio and manifest are kept in `folder`.

    Args:
        dependencies: what the copies follow from; copies of other ones are made anew.
    """
    copies = []
    for speed in speeds:
        audio, manifest = folder / f"speed-{speed:g}.flac", folder / f"speed-{speed:g}.csv"
        note = folder / f"speed-{speed:g}.txt"
        if not (note.exists() and note.read_text() == dependencies):
            write_manifest(manifest, _write(utterances, speed, audio))
            with replacing(note) as temporary:
                temporary.write_text(dependencies)
        copies += read_manifest(manifest)
    return copies


def _write(utterances: Sequence[Utterance], speed: float, audio: Path) -> list[Utterance]:
    rows, at = [], 0
    with (
        replacing(audio) as temporary,
        soundfile.SoundFile(temporary, "w", RATE, 1, "PCM_16", format="FLAC") as file,
        track(len(utterances), f"audio at {speed:g} times its speed") as progress,
    ):
        for number, utterance in enumerate(utterances, 1):
            pcm = to_pcm(soxr.resample(read_segment(utterance), RATE * speed, RATE))
            file.write(pcm)
            rows.append(
                replace(utterance, id=f"{utterance.id}@{speed:g}", path=audio.as_posix(), start=at,
                        samples=len(pcm))
            )  # fmt: skip
            at += len(pcm)
            progress.update(number)
    return rows
