"""Hidden states of a teacher on the calibration set, the small sample that layers are compared on.

Axes: S samples (16 kHz), L states, N frames pooled over utterances, D width.

An utterance is a batch of its own, so that no frame of padding exists. What is written is a stack
of layer states (`skill.similarity.layer_states`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from skill.config.jobs import ActivationsJob
from skill.data.audio import read_segment
from skill.data.manifest import RATE, Utterance, read_manifest
from skill.encoder import SpeechEncoder
from skill.encoder.checkpoint import load_encoder
from skill.encoder.inference import hidden_states
from skill.similarity.layer_states import write_activations
from skill.similarity.streaming import StreamingCKA
from skill.training.exactness import Subject
from skill.training.machine_check import choose_precision, speech_clip
from skill.utils.errors import SkillError
from skill.utils.hashing import stable_hash
from skill.utils.progress import track
from skill.utils.provenance import stamp


@dataclass(frozen=True)
class CalibrationUtterance:
    """One utterance of the calibration set and which of its frames are kept."""

    utterance: Utterance
    frames: int
    kept: list[int]


def run(teacher: Path, manifests: Sequence[Path], job: ActivationsJob, output: Path) -> None:
    """The command `activations`: write the states of the encoder in `teacher`, named by its stem.

    Raises:
        SkillError: no audio to calibrate on, or a state that is constant, not finite or beyond
            half precision in some utterance, named with teacher, state and utterance.
    """
    encoder = load(teacher)
    pieces = calibration_set(manifests, job, encoder)
    total = sum(len(piece.kept) for piece in pieces)
    states: Tensor | None = None
    owner = torch.empty(total, dtype=torch.int32)
    start = 0
    with track(len(pieces), f"activations {teacher.stem}") as progress:
        for index, (piece, layers) in enumerate(calibration_states(encoder, teacher.stem, pieces)):
            stop = start + layers.shape[1]
            if states is None:
                shift = layers.double().mean(1).float()
                states = torch.empty(total, *shift.shape, dtype=torch.float16)
            half = (layers - shift[:, None]).half()
            for state in torch.nonzero(~torch.isfinite(half).flatten(1).all(1)).flatten().tolist():
                raise SkillError(
                    f"{teacher.stem}: state {state} is beyond half precision in utterance "
                    f"{piece.utterance.id}"
                )
            states[start:stop] = half.transpose(0, 1)
            owner[start:stop] = index
            start = stop
            progress.update(index + 1)
    assert states is not None
    provenance = stamp([teacher, *manifests], job, "float32")
    utterances = [piece.utterance for piece in pieces]
    write_activations(output, teacher.stem, states, shift, owner, utterances, provenance)


def stream(
    teachers: Sequence[Path],
    manifests: Sequence[Path],
    job: ActivationsJob,
    *,
    estimator: str = "unbiased",
    standardize: bool = False,
) -> tuple[list[str], Tensor]:
    """CKA of all states of the teachers in one pass over the audio; no state is stored.

    Returns the states' names ("teacher:number") and CKA [L, L]: what `run` and then the
    command `similarity` give, without the rounding to half precision.

    Raises:
        SkillError: as `run`; or teachers of different frame rates.
    """
    encoders = [load(teacher) for teacher in teachers]
    names = [
        f"{teacher.stem}:{state}"
        for teacher, encoder in zip(teachers, encoders, strict=True)
        for state in range(encoder.config.num_blocks + 1)
    ]
    pieces = calibration_set(manifests, job, encoders[0])
    streaming = StreamingCKA(estimator, standardize=standardize, names=names)
    sources = [
        calibration_states(encoder, teacher.stem, pieces)
        for teacher, encoder in zip(teachers, encoders, strict=True)
    ]
    with track(len(pieces), "similarity") as progress:
        for index, pairs in enumerate(zip(*sources, strict=True)):
            streaming.update([state for _, states in pairs for state in states])
            progress.update(index + 1)
    return names, streaming.result()


def load(teacher: Path) -> SpeechEncoder:
    """The encoder in a file, for inference, on the GPU where there is one."""
    encoder = load_encoder(teacher).eval().requires_grad_(False)
    return encoder.to("cuda" if torch.cuda.is_available() else "cpu")


def select_calibration_set(
    utterances: Iterable[Utterance], *, seed: int, seconds: float, shortest: float, longest: float
) -> list[Utterance]:
    """Training utterances in the order of a hash of their names, up to `seconds` in all.

    Those below `shortest` seconds are left out; those above `longest` are cut, not dropped, and so
    is the last. The order depends on the seed and the names only, not on the order of the input.
    """
    left, chosen = round(seconds * RATE), []
    for utterance in sorted(utterances, key=lambda u: stable_hash(f"{seed}/{u.corpus}/{u.id}")):
        samples = min(utterance.samples, round(longest * RATE), left)
        if utterance.split == "train" and samples >= shortest * RATE:
            chosen.append(replace(utterance, samples=samples))
            left -= samples
        if left < shortest * RATE:
            break
    return chosen


def calibration_set(
    manifests: Sequence[Path], job: ActivationsJob, encoder: SpeechEncoder
) -> list[CalibrationUtterance]:
    """The chosen utterances; `max_frames` of their frames are kept, evenly spaced over all.

    Raises:
        SkillError: the manifests have no training utterance that is long enough.
    """
    utterances = select_calibration_set(
        (utterance for path in manifests for utterance in read_manifest(path)),
        seed=job.seed,
        seconds=job.activations.seconds,
        shortest=job.unlabelled.min_seconds,
        longest=job.unlabelled.max_seconds,
    )
    counts = [int(encoder.frames(utterance.samples)) for utterance in utterances]
    counted = [(u, count) for u, count in zip(utterances, counts, strict=True) if count > 0]
    total = sum(count for _, count in counted)
    if total < 4:
        where = ", ".join(str(path) for path in manifests)
        raise SkillError(f"{where}: no training utterance is long enough to calibrate on")
    limit = min(total, job.activations.max_frames)
    places_kept = np.arange(limit) * total // limit
    edges = np.cumsum([0, *(count for _, count in counted)])
    places = np.searchsorted(places_kept, edges)
    return [
        CalibrationUtterance(
            utterance, count, (places_kept[places[i] : places[i + 1]] - edges[i]).tolist()
        )
        for i, (utterance, count) in enumerate(counted)
        if places[i] < places[i + 1]
    ]


def calibration_states(
    encoder: SpeechEncoder, teacher: str, pieces: Iterable[CalibrationUtterance]
) -> Iterator[tuple[CalibrationUtterance, Tensor]]:
    """Yield each utterance with its kept frames of all states, [L, n, D] in float32.

    Raises:
        SkillError: a state that is constant or not finite; another number of frames than the
            calibration set was cut for, where the teacher's frame rate differs; or a machine that
            computes the encoder wrongly.
    """
    pieces = list(pieces)
    clip = speech_clip(piece.utterance for piece in pieces)
    choose_precision(teacher, [Subject(teacher, encoder)], clip, "float32")
    for piece in pieces:
        name = piece.utterance.id
        states = hidden_states(encoder, [read_segment(piece.utterance)])[0].cpu()
        if states.shape[1] != piece.frames:
            raise SkillError(
                f"{teacher}: {states.shape[1]} frames instead of {piece.frames} in utterance "
                f"{name}; teachers that are compared need the same frame rate"
            )
        for state, values in enumerate(states):
            if not bool(torch.isfinite(values).all()):
                raise SkillError(f"{teacher}: state {state} is NaN or infinite in utterance {name}")
            if len(values) > 1 and bool((values == values[0]).all()):
                raise SkillError(f"{teacher}: state {state} is constant over utterance {name}")
        yield piece, states[:, piece.kept]
