"""Features of every frame of a corpus: MFCC, states of a model, or states of a real encoder.

They are the raw material of pretraining's targets: clustered (`pseudo_labels`) or predicted as they
are. Features of hours of speech do not fit into memory twice, so they are kept in a file.

Axes: S samples, T frames (20 ms), N frames of all utterances, D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import kaldi_native_fbank
import numpy as np
from numpy.typing import NDArray

from skill.data.audio import read_segment
from skill.data.manifest import Utterance
from skill.utils.errors import SkillError
from skill.utils.files import canonical_json, replacing
from skill.utils.progress import track

HOP = 320  # samples per frame
Compute = Callable[[NDArray[np.float32]], Sequence[NDArray[np.float32]]]


@dataclass(frozen=True)
class FrameValues:
    """One value or vector per frame: `values` [N] or [N, D], each utterance's place among them.

    `centre`: the sample that an utterance's first frame is centred on.
    """

    values: np.ndarray
    places: dict[str, tuple[int, int]]
    centre: int

    def of(self, utterance: str) -> np.ndarray:
        """Those of one utterance, [T] or [T, D]."""
        first, last = self.places[utterance]
        return self.values[first:last]

    def segment(self, utterance: str, sample: int, frames: int) -> np.ndarray:
        """`frames` of them, the first of which is the nearest to `sample`; ends are repeated."""
        first, last = self.places[utterance]
        start = first + round((sample - self.centre) / HOP)
        return self.values[np.arange(start, start + frames).clip(first, last - 1)]


def mfcc(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """39 values per 20 ms frame: 13 MFCC with their first and second differences, [T, 39].

    Windows of 25 ms from the utterance's start, the receptive field of the encoder's frames. The
    mean of the first one, the utterance's level, is taken off: the encoder's group norm hides it.
    """
    options = kaldi_native_fbank.MfccOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.frame_shift_ms = 10.0
    options.mel_opts.num_bins = 23
    options.num_ceps = 13
    computer = kaldi_native_fbank.OnlineMfcc(options)
    computer.accept_waveform(16000, (waveform * 32768.0).tolist())
    computer.input_finished()
    static = np.array([computer.get_frame(i) for i in range(computer.num_frames_ready)])
    static[:, 0] -= static[:, 0].mean()
    first = np.gradient(static, axis=0)
    return np.concatenate([static, first, np.gradient(first, axis=0)], axis=1)[::2]


def store(
    paths: Sequence[Path],
    utterances: Sequence[Utterance],
    compute: Compute,
    centre: int,
    encoder_frames: Callable[[int], int],
    dependencies: str,
) -> list[FrameValues]:
    """The features of all utterances, kept in `paths`, one file for each that `compute` returns.

    Args:
        compute: a waveform [S] to features [T, D], as many as there are paths.
        centre: the sample that their first frame is centred on.
        encoder_frames: samples to the frames of the model that is to predict them.
        dependencies: what they follow from; files that follow from other things are made anew.

    Raises:
        SkillError: an utterance has fewer frames of features than of audio.
    """
    note = paths[0].with_suffix(".txt")
    key = canonical_json([dependencies, [path.name for path in paths], centre])
    places_file = paths[0].with_suffix(".places.npy")
    if not (note.exists() and note.read_text() == key and all(path.exists() for path in paths)):
        note.unlink(missing_ok=True)
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        counts = _write(paths, utterances, compute, encoder_frames)
        with replacing(places_file) as temporary, temporary.open("wb") as file:
            np.save(file, np.array(counts))
        with replacing(note) as temporary:
            temporary.write_text(key)
    ends = np.load(places_file).cumsum().tolist()
    places = {
        utterance.id: (first, last)
        for utterance, first, last in zip(utterances, [0, *ends], ends, strict=False)
    }
    return [FrameValues(np.load(path, mmap_mode="r"), places, centre) for path in paths]


def _write(
    paths: Sequence[Path],
    utterances: Sequence[Utterance],
    compute: Compute,
    encoder_frames: Callable[[int], int],
) -> list[int]:
    """Compute and write; frames of each utterance. Files of half precision grow as they come."""
    counts: list[int] = []
    raw = [path.with_suffix(".raw") for path in paths]
    widths: list[int] = []
    files = [path.open("wb") for path in raw]
    try:
        with track(len(utterances), f"features for {', '.join(p.stem for p in paths)}") as progress:
            for index, utterance in enumerate(utterances):
                features = compute(read_segment(utterance))
                if len(features[0]) < encoder_frames(utterance.samples):
                    raise SkillError(
                        f"utterance {utterance.id}: {len(features[0])} frames of targets for "
                        f"{encoder_frames(utterance.samples)} frames of audio"
                    )
                counts.append(len(features[0]))
                widths = [feature.shape[1] for feature in features]
                for file, feature in zip(files, features, strict=True):
                    file.write(feature.astype(np.float16).tobytes())
                progress.update(index + 1)
    finally:
        for file in files:
            file.close()
    for path, source, width in zip(paths, raw, widths, strict=True):
        values = np.memmap(source, np.float16, "r", shape=(sum(counts), width))
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, values)
        source.unlink()
    return counts
