"""What masked prediction classifies: the cluster of every frame, by k-means of features.

Axes: N frames of all utterances, D width, C clusters.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

from skill.data.manifest import Utterance
from skill.teachers.frame_features import FrameValues
from skill.utils.files import replacing

_SHARE = 0.2  # of all training frames, that k-means and the standardisation are fitted on
_CHUNK = 50_000  # frames that are labelled at once


def fit_clusters(features: NDArray[np.float32], clusters: int, seed: int) -> MiniBatchKMeans:
    """k-means of feature vectors [N, D]."""
    model = MiniBatchKMeans(
        clusters, batch_size=10_000, n_init=3, max_iter=50, random_state=seed, compute_labels=False
    )
    return model.fit(features.astype(np.float32))


def training_share(
    features: FrameValues, utterances: Iterable[Utterance], seed: int
) -> NDArray[np.float32]:
    """A random fifth of the frames of `utterances`, [N / 5, D]."""
    draw = np.random.default_rng(seed)
    rows = [features.of(utterance.id) for utterance in utterances]
    return np.concatenate([row[draw.random(len(row)) < _SHARE] for row in rows]).astype(np.float32)


def moments(sample: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation [D] of a sample [N, D]."""
    return sample.mean(0), sample.std(0).clip(min=1e-6)


def cluster_labels(
    path: Path,
    features: FrameValues,
    utterances: Iterable[Utterance],
    clusters: int,
    seed: int,
    dependencies: str,
) -> FrameValues:
    """The cluster of every frame of standardised `features`; kept in `path` for a restart.

    Args:
        utterances: what k-means is fitted on, a fifth of their frames.
        dependencies: what the labels follow from; labels of other ones are made anew.
    """
    if path.exists():
        with np.load(path) as stored:
            if str(stored["dependencies"]) == dependencies:
                return FrameValues(stored["labels"], features.places, features.centre)
    sample = training_share(features, utterances, seed)
    mean, deviation = moments(sample)
    model = fit_clusters((sample - mean) / deviation, clusters, seed)
    labels = np.concatenate(
        [
            model.predict((features.values[first : first + _CHUNK].astype(np.float32) - mean)
                          / deviation)
            for first in range(0, len(features.values), _CHUNK)
        ]
    ).astype(np.int16)  # fmt: skip
    with replacing(path) as temporary:
        np.savez(temporary, dependencies=np.array(dependencies), labels=labels)
    return FrameValues(labels, features.places, features.centre)
