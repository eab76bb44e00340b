"""Query by example: warping against the recurrence and the package, normalised search."""

from functools import partial
from itertools import pairwise, product

import numpy as np
import pytest
import torch

from skill.superb import dtw, query_by_example
from skill.superb.examples import Example
from skill.superb.feature_cache import FeatureCache


@pytest.mark.parametrize(("frames", "length"), [(1, 4), (2, 1), (3, 2), (3, 6), (4, 5)])
def test_warping_distance_is_the_best_of_all_paths(frames, length):
    distances = np.random.default_rng(frames).random((frames, length))
    low, high = distances.min(1, keepdims=True), distances.max(1, keepdims=True)
    scaled = (distances - low) / np.maximum(high - low, 1e-9)
    paths = product(range(length), repeat=frames)
    allowed = (p for p in paths if all(0 <= b - a <= 2 for a, b in pairwise(p)))
    best = min(sum(scaled[i, j] for i, j in enumerate(path)) for path in allowed)
    assert dtw.warping_distance(distances) == pytest.approx(best / frames, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_warping_equals_the_recurrence(seed):
    generator = np.random.default_rng(seed)
    lengths = np.sort(generator.integers(1, 40, 7))[::-1]
    sizes = np.sort(generator.integers(1, 12, 4))[::-1].tolist()
    sizes[1] = sizes[0]
    widest = int(lengths[0])
    queries = [generator.random((7, size, widest)) for size in sizes]
    places = np.clip(np.arange(-2, widest), 0, lengths[:, None] - 1)
    laid = [np.take_along_axis(one, places[:, None], axis=2) for one in queries]
    rows = torch.from_numpy(
        np.stack([one[:, frame] for frame in range(sizes[0]) for one in laid
                  if frame < one.shape[1]])
    )  # fmt: skip
    dtw.scale_rows(rows)
    outside = torch.from_numpy(np.arange(widest) >= lengths[:, None])
    ours = dtw.warp(rows, sizes, outside)
    for k, one in enumerate(queries):
        for n, length in enumerate(lengths):
            assert float(ours[k, n]) == pytest.approx(
                dtw.warping_distance(one[n, :, :length]), abs=1e-15
            )


@pytest.mark.parametrize("batch_cells", [1, 4000, 2_000_000])
def test_search_scores_equal_pair_by_pair(batch_cells, monkeypatch):
    monkeypatch.setattr(dtw, "_COLUMNS", 40)
    torch.manual_seed(0)
    queries = [torch.randn(n, 6, dtype=torch.float64) for n in (9, 4, 5, 12, 9, 7)]
    documents = [torch.randn(n, 6, dtype=torch.float64) for n in (30, 12, 18, 12, 1, 100)]
    silence = torch.full((20, 6), 0.1, dtype=torch.float64)
    documents.append(silence)  # every row is constant but for rounding, so nothing differs from 0
    scores = dtw.search_scores(queries, documents, batch_cells)
    assert (scores[1] == 0).all()  # fewer than five frames
    for q in (0, 2, 3, 4, 5):
        for d, document in enumerate(documents[:-1]):
            expected = -dtw.warping_distance(dtw.cosine_exp(queries[q], document).numpy())
            assert float(scores[q, d]) == pytest.approx(expected, abs=1e-6)
    half = dtw.search_scores([q.float() for q in queries], [d.float() for d in documents])
    assert (half[:, :-1] - scores[:, :-1]).abs().max() < 1e-5
    assert max(scores[:, -1].abs().max(), half[:, -1].abs().max()) < 0.03
    normal = dtw.z_scores(scores)
    assert normal[0].mean().abs() < 1e-6 and (normal[1] == 0).all()
    assert dtw.search_scores(queries[1:2], documents).tolist() == [[0.0] * 7]


def test_warping_equals_the_package():
    package = pytest.importorskip("dtw").dtw
    torch.manual_seed(2)
    queries, documents = ([torch.randn(n, 8) for n in sizes] for sizes in ((20, 9), (60, 30, 45)))
    scores = dtw.search_scores(queries, documents)
    for q, query in enumerate(queries):
        for d, document in enumerate(documents):
            distances = dtw.cosine_exp(query.double(), document.double()).numpy()
            low, high = distances.min(1, keepdims=True), distances.max(1, keepdims=True)
            found = package((distances - low) / (high - low), step_pattern="asymmetric",
                        open_begin=True, open_end=True)  # fmt: skip
            assert -float(scores[q, d]) == pytest.approx(found.normalizedDistance, abs=1e-6)


def vectors(count, shortest, seed):
    """Examples whose samples are the frames of a pretended upstream."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(shortest, shortest + 30, count)
    return [
        Example(f"{seed}-{n}", int(size), (), "s",
                partial(np.copy, generator.normal(n, 2, int(size)).astype(np.float32)))
        for n, size in enumerate(sizes)
    ]  # fmt: skip


class Pretended:
    """Frames are samples; the states are functions of them, far from normalised."""

    states, width, hop, device = 3, 5, 1, torch.device("cpu")

    def __init__(self):
        self.calls = 0

    def frames(self, samples):
        return samples

    def __call__(self, waveforms):
        self.calls += len(waveforms)
        powers = torch.arange(1, 6) / 3
        return [
            torch.stack([torch.sin(torch.from_numpy(w)[:, None] * powers * (s + 1)) * 9 + 50 * s
                         for s in range(3)]) for w in waveforms
        ]  # fmt: skip


@pytest.mark.parametrize("cache", [0, 1e9])
def test_search_normalises_over_queries_and_documents_in_two_passes(cache):
    queries, documents = vectors(4, 6, 0), vectors(9, 20, 1)
    upstream = Pretended()
    features = FeatureCache(upstream, pooled=False, cache_bytes=cache, batch_seconds=100 / 16000)
    features.dtype = torch.float32
    features.prepare([*queries, *documents], "test")
    found = query_by_example.scores(features, [0, 2], queries, documents)
    assert upstream.calls == (13 if cache else 2 * 13)  # whatever the number of states
    for row, state in zip(found, (0, 2), strict=True):
        frames = [[upstream([e.read()])[0][state].double() for e in part]
                  for part in (queries, documents)]  # fmt: skip
        both = torch.cat([*frames[0], *frames[1]])
        normal = [[(x - both.mean(0)) / both.std(0) for x in part] for part in frames]
        expected = dtw.z_scores(dtw.search_scores(*normal)).numpy()
        assert row == pytest.approx(expected, abs=1e-3)


def test_a_query_is_found_where_it_was_cut():
    torch.manual_seed(1)
    documents = [torch.randn(50, 8) for _ in range(5)]
    scores = dtw.search_scores([documents[3][20:32]], documents)
    assert int(scores[0].argmax()) == 3
