"""The values of a round's targets: from parameters (`PretrainingTarget`) to frames.

Axes: T frames (20 ms), N frames of all utterances, D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skill.config.pretraining import PretrainingTarget
from skill.data.batches import BatchPlan
from skill.data.manifest import Utterance
from skill.encoder import SpeechEncoder
from skill.encoder.inference import hidden_states
from skill.teachers import whisper
from skill.teachers.frame_features import FrameValues, mfcc, store
from skill.teachers.pseudo_labels import cluster_labels, moments, training_share
from skill.training.precision import autocast

_MFCC_CENTRE = 200  # samples: half of its first window
Utterances = dict[str, list[Utterance]]


@dataclass(frozen=True)
class TargetValues:
    """What one target wants of every frame: a label [N], or features [N, D] to standardise."""

    frames: FrameValues
    mean: NDArray[np.float32] | None = None
    deviation: NDArray[np.float32] | None = None

    @property
    def dimensions(self) -> int:
        """D; 1 of labels."""
        return 1 if self.frames.values.ndim == 1 else int(self.frames.values.shape[1])

    def of(self, plan: BatchPlan, frames: int, centre: int) -> NDArray[np.generic]:
        """Those of a cropped batch, [B, frames] or [B, frames, D].

        Args:
            centre: the sample of a crop that the model's first frame is centred on.
        """
        rows = [
            self.frames.segment(utterance.id, start + centre, frames)
            for utterance, start in zip(plan.utterances, plan.starts, strict=True)
        ]
        values = np.stack(rows)
        if self.mean is None or self.deviation is None:
            return values.astype(np.int64)
        return (values.astype(np.float32) - self.mean) / self.deviation


def round_targets(
    scratch: Path,
    number: int,
    targets: Sequence[PretrainingTarget],
    utterances: Utterances,
    encoder: SpeechEncoder,
    seed: int,
    corpus: str,
    dependencies: str,
    precision: str,
) -> list[TargetValues | None]:
    """The values of each target of round `number`; None for the spectrum, made as it is needed.

    Args:
        encoder: the model so far.
        corpus: what the utterances follow from.
        dependencies: what the model so far follows from.
        precision: of the model so far.

    Raises:
        SkillError: an encoder is not installed, or has fewer frames than there is audio.
    """
    listed = [utterance for part in utterances.values() for utterance in part]
    values: list[TargetValues | None] = []
    for target in targets:
        if target.features == "spectrum":
            values.append(None)
            continue
        group = [t for t in targets if (t.features, t.encoder) == (target.features, target.encoder)]
        layers = sorted({t.layer for t in group if t.layer is not None})
        of_model = target.features == "model"
        key = f"{dependencies} {number}" if of_model else corpus
        source = f"round{number}" if of_model else target.encoder or "mfcc"
        names = [f"{source}-{layer}" for layer in layers] or [source]
        compute, first_centre = _features(target, layers, encoder, precision)
        stored = store(
            [scratch / f"{name}.npy" for name in names],
            listed, compute, first_centre, encoder.frames, key,
        )  # fmt: skip
        place = 0 if target.layer is None else layers.index(target.layer)
        features, name = stored[place], names[place]
        if target.clusters is None:
            sample = training_share(features, utterances["train"], seed)
            values.append(TargetValues(features, *moments(sample)))
        else:
            path = scratch / f"{name}-{target.clusters}.npz"
            labels = cluster_labels(
                path, features, utterances["train"], target.clusters, seed, f"{key} {seed}"
            )
            values.append(TargetValues(labels))
    return values


def _features(
    target: PretrainingTarget, layers: Sequence[int], encoder: SpeechEncoder, precision: str
) -> tuple[Callable[[NDArray[np.float32]], list[NDArray[np.float32]]], int]:
    """A function from a waveform [S] to features [T, D] of each layer, and their first centre."""
    if target.encoder is not None:
        real = whisper.load(target.encoder)

        def states(waveform: NDArray[np.float32]) -> list[NDArray[np.float32]]:
            layer_states = real.states(waveform)
            return [layer_states[layer].numpy() for layer in layers]

        return states, 0
    if target.features == "mfcc":
        return lambda waveform: [mfcc(waveform)], _MFCC_CENTRE
    encoder.eval()

    def model_states(waveform: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        with autocast(precision, "cpu"):
            layer_states = hidden_states(encoder, [waveform])[0]
        return [layer_states[layer].numpy() for layer in layers]

    return model_states, encoder.config.receptive_field // 2
