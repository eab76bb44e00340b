"""What masked prediction predicts: a cluster for every frame of every utterance.

Round 1 clusters MFCC, later rounds a middle layer of the model that the round before made.

Axes: T frames (20 ms), D width, N frames of a corpus, C clusters.
"""

from pathlib import Path

import kaldi_native_fbank
import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans

from skill.data.audio import read_segment
from skill.data.manifest import Utterance
from skill.encoder import SpeechEncoder
from skill.training.precision import autocast
from skill.utils.files import replacing
from skill.utils.progress import track

_SHARE = 0.2  # of all frames, that k-means is fitted on


def mfcc(waveform: np.ndarray) -> np.ndarray:
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


def fit_clusters(features: np.ndarray, clusters: int, seed: int) -> MiniBatchKMeans:
    """k-means of feature vectors [N, D]."""
    model = MiniBatchKMeans(
        clusters, batch_size=10_000, n_init=3, max_iter=50, random_state=seed, compute_labels=False
    )
    return model.fit(features.astype(np.float32))


@torch.no_grad()
def layer_features(encoder: SpeechEncoder, waveform: np.ndarray, layer: int) -> np.ndarray:
    """State `layer` of one utterance, [T, D]."""
    for name, state in encoder.iterate(torch.from_numpy(waveform)[None]):
        if name == layer:
            return state[0].float().numpy()
    raise ValueError(f"the encoder has no state {layer}")


def cluster_labels(
    path: Path,
    utterances: dict[str, list[Utterance]],
    encoder: SpeechEncoder | None,
    layer: int,
    clusters: int,
    seed: int,
    dependencies: str,
) -> dict[str, np.ndarray]:
    """The cluster of every frame of every utterance, by k-means; kept in `path` for a restart.

    Args:
        utterances: by split; k-means is fitted on a share of "train".
        encoder: the features are its states of `layer`; MFCC where None.
        dependencies: what the labels follow from; labels of other ones are made anew.
    """
    if path.exists():
        with np.load(path) as kept:
            if str(kept["dependencies"]) == dependencies:
                return {key: kept[key] for key in kept.files if key != "dependencies"}
    everything = [u for part in utterances.values() for u in part]
    found: dict[str, np.ndarray] = {}
    with track(len(everything), f"features for {path.stem}") as progress:
        for index, utterance in enumerate(everything):
            waveform = read_segment(utterance)
            if encoder is None:
                feature = mfcc(waveform)
            else:
                with autocast("bf16", "cpu"):
                    feature = layer_features(encoder.eval(), waveform, layer)
            found[utterance.id] = feature.astype(np.float16 if encoder is not None else np.float32)
            progress.update(index + 1)
    draw = np.random.default_rng(seed)
    sample = np.concatenate(
        [found[u.id][draw.random(len(found[u.id])) < _SHARE] for u in utterances["train"]]
    ).astype(np.float32)
    mean, deviation = sample.mean(0), sample.std(0).clip(min=1e-6)
    model = fit_clusters((sample - mean) / deviation, clusters, seed)
    labels = {
        key: model.predict(((value - mean) / deviation).astype(np.float32)).astype(np.int16)
        for key, value in found.items()
    }
    with replacing(path) as temporary:
        np.savez(temporary, dependencies=np.array(dependencies), **labels)  # type: ignore[arg-type]
    return labels
