"""Search, verification, diarization, costs and the table: against recurrences and closed forms."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from skill.config.tasks import PROTOCOL, configured
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.superb import diarization, dtw, heads, profile, query_by_example, scores, verification
from skill.superb.datasets import constructed
from skill.superb.downstream import value
from skill.superb.examples import Example, Fold, Trial
from skill.superb.metrics import Turn
from skill.superb.upstream import Features
from skill.superb.verification import XVector, additive_margin_loss
from skill.utils.errors import SkillError
from skill.utils.files import read_csv, read_json, write_csv, write_json


def recurrence(distances):
    """superb.md 2.4, one pair at a time: [Q, T] after row scaling."""
    low, high = distances.min(1, keepdims=True), distances.max(1, keepdims=True)
    d = (distances - low) / np.where(high > low, high - low, 1)
    total = np.full_like(d, np.inf)
    total[0] = d[0]
    for i in range(1, d.shape[0]):
        for j in range(d.shape[1]):
            total[i, j] = d[i, j] + min(total[i - 1, max(0, j - 2) : j + 1])
    return total[-1].min() / d.shape[0]


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
            assert float(ours[k, n]) == pytest.approx(recurrence(one[n, :, :length]), abs=1e-15)


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
            expected = -recurrence(dtw.cosine_exp(queries[q], document).numpy())
            assert float(scores[q, d]) == pytest.approx(expected, abs=1e-6)
    half = dtw.search_scores([q.float() for q in queries], [d.float() for d in documents])
    assert (half[:, :-1] - scores[:, :-1]).abs().max() < 1e-5
    assert max(scores[:, -1].abs().max(), half[:, -1].abs().max()) < 0.03
    normal = dtw.z_scores(scores)
    assert normal[0].mean().abs() < 1e-6 and (normal[1] == 0).all()
    assert dtw.search_scores(queries[1:2], documents).tolist() == [[0.0] * 7]


def test_warping_equals_the_package():
    dtw = pytest.importorskip("dtw").dtw
    torch.manual_seed(2)
    queries, documents = ([torch.randn(n, 8) for n in sizes] for sizes in ((20, 9), (60, 30, 45)))
    scores = dtw.search_scores(queries, documents)
    for q, query in enumerate(queries):
        for d, document in enumerate(documents):
            distances = dtw.cosine_exp(query.double(), document.double()).numpy()
            low, high = distances.min(1, keepdims=True), distances.max(1, keepdims=True)
            found = dtw((distances - low) / (high - low), step_pattern="asymmetric",
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
    features = Features(upstream, pooled=False, cache_bytes=cache, batch_seconds=100 / 16000)
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


def test_xvector_has_the_protocols_layers():
    task = PROTOCOL["asv"]
    head = XVector(13, 768, task.hidden, task.pooled, 1211)
    delays = (512 * 5 + 1) * 512 + 2 * (512 * 3 + 1) * 512 + 513 * 512 + 513 * 1500
    expected = 13 + 769 * 512 + delays + 3001 * 512 + 513 * 512 + 512 * 1211
    assert sum(p.numel() for p in head.parameters()) == expected
    assert verification.LOST_FRAMES == 14


def test_xvector_statistics_of_padded_and_short_utterances():
    torch.manual_seed(0)
    head = XVector(2, 6, 8, 10, 3)
    states = torch.randn(2, 2, 40, 6)
    alone = head(states[:, :1, :30], torch.tensor([30]))
    states[:, 0, 30:] = 0
    together = head(states, torch.tensor([30, 40]))
    # in training the protocol counts one frame more of the shorter one: near, but not equal
    assert 0 < float((together[0] - alone[0]).detach().abs().max()) < 0.2
    head.eval()
    torch.testing.assert_close(head(states, torch.tensor([30, 40]))[0], alone[0])
    head.train()
    torch.testing.assert_close(together[1], head(states[:, 1:], torch.tensor([40]))[0])
    assert torch.isfinite(head(states[:, :, :5], torch.tensor([5, 4]))).all()


def test_additive_margin_loss_by_hand():
    cosines = torch.tensor([[0.9, 0.1]], dtype=torch.float64)
    expected = -np.log(np.exp(30 * 0.5) / (np.exp(30 * 0.5) + np.exp(3.0)))
    right = float(additive_margin_loss(cosines, torch.tensor([0])))
    assert right == pytest.approx(expected)
    wrong = float(additive_margin_loss(cosines, torch.tensor([1])))
    assert wrong == pytest.approx(30 * 0.9 - 30 * (0.1 - 0.4), abs=1e-4)


def examples(count):
    return [Example(f"u{i}", 16000, (0,), f"s{i % 2}", lambda: None) for i in range(count)]


def test_verification_counts_dev_and_test_trials():
    made = examples(8)
    trials = {
        "dev": [Trial(True, "u0", "u2", "s0"), Trial(False, "u0", "u1", "s0")],
        "test": [Trial(True, "u4", "u6", "s0"), Trial(False, "u4", "u5", "s0")],
    }
    fold = Fold([], made[:4], made[4:], labels=(("a",),), trials=trials)
    problem = verification.Verification(configured("asv", {}), fold)
    vectors = np.eye(2)[[0, 1, 0, 1, 0, 0, 1, 1]]
    both = problem.counts(problem.watched(), vectors)
    assert value("eer", both["eer"]) == 0 and value("eer_test", both["eer_test"]) == 100
    alone = problem.counts(made[4:], vectors[4:])
    assert list(alone) == ["eer"] and value("eer", alone["eer"]) == 100
    assert problem.items(made[4:]) == [("u4:u6", "s0"), ("u4:u5", "s0")]


def test_permutation_loss_ignores_names_and_padding():
    torch.manual_seed(0)
    logits = torch.randn(2, 9, 2)
    targets = (torch.rand(2, 9, 2) > 0.5).float()
    lengths = torch.tensor([9, 5])
    loss, chosen = diarization.permutation_loss(logits, targets, lengths)
    swapped, _ = diarization.permutation_loss(logits, targets.flip(-1), lengths)
    torch.testing.assert_close(loss, swapped)
    bce = nn.functional.binary_cross_entropy_with_logits
    parts = [
        min(float(bce(logits[b, :n], t, reduction="none").mean(-1).sum())
            for t in (targets[b, :n], targets[b, :n].flip(-1)))
        for b, n in enumerate(lengths)
    ]  # fmt: skip
    assert float(loss) == pytest.approx(sum(parts) / 14)
    assert chosen.shape == targets.shape


def test_turns_go_to_frames_and_back():
    turns = (Turn("x", 0.0, 1.0), Turn("y", 0.8, 2.0), Turn("x", 2.4, 3.0))
    frames = diarization.frame_targets(turns, 160, 320)
    assert frames[:, 0].sum() == 50 + 30 and frames[:, 1].sum() == 60
    back = diarization.turns_of(frames, 320, median=1, threshold=0.5)
    assert [(t.start, t.end) for t in back] == [(0, 1), (2.4, 3), (0.8, 2)]
    problem = diarization.Diarization(configured("sd", {}), Fold([], [], []), 320)
    recording = Example("r", 51200, turns, "x+y", lambda: None)
    counts = problem.counts([recording], [frames])
    assert value("frame_accuracy", counts["frame_accuracy"]) == 100
    assert value("der", counts[diarization.setting_name(1, 0.5)]) == pytest.approx(0, abs=1e-9)
    final = problem.final(counts, counts)
    assert set(final) == {"der", "der_clean", "der_superb"}
    head = problem.build(13, 768)
    expected = 13 + 4 * 512 * (768 + 512) + 8 * 512 + 513 * 2
    assert sum(p.numel() for p in head.parameters()) == expected


def test_mixture_and_bounds_know_the_turns():
    clip = np.zeros(16000, dtype=np.float32)
    clip[4000:12000] = 0.3
    first, last = constructed.speech_bounds(clip)
    assert abs(first - 4000) <= 400 and abs(last - 12000) <= 400
    mixed = constructed.Mixture(((lambda: clip, 4000, 12000, 8000),), 24000)()
    assert len(mixed) == 24000 and not mixed[:8000].any() and not mixed[16000:].any()
    assert mixed[8000:16000] == pytest.approx(0.05)


def test_the_lstm_starts_anew_after_every_chunk():
    torch.manual_seed(0)
    settings = {"recurrent": 6, "chunk_frames": 5}
    problem = diarization.Diarization(configured("sd", settings), Fold([], [], []), 320)
    head = problem.build(2, 4)
    states, lengths = torch.randn(2, 3, 12, 4), torch.tensor([12, 7, 4])
    whole = head(states, lengths)
    for first, last in ((0, 5), (5, 10), (10, 12)):
        alone = head(states[:, :1, first:last], torch.tensor([last - first]))
        torch.testing.assert_close(whole[:1, first:last], alone)
    # speakers may change names between chunks, as recordings do
    turns = (Turn("x", 0.0, 0.1), Turn("y", 0.1, 0.24))
    recordings = [Example(f"r{n}", 3840, turns, "x+y", lambda: None) for n in range(3)]
    targets = torch.from_numpy(diarization.frame_targets(turns, 12, 320)).expand(3, -1, -1)
    parts = []
    for first, left in ((0, (5, 5, 4)), (5, (5, 2)), (10, (2,))):
        rows = len(left)
        loss, _ = diarization.permutation_loss(
            whole[:rows, first : first + 5], targets[:rows, first : first + 5], torch.tensor(left)
        )
        parts.append(loss * sum(left))
    expected = sum(parts) / 23
    torch.testing.assert_close(problem.loss(head, states, lengths, recordings), expected)


def test_leaderboards_lengths_give_its_macs():
    """HuBERT Base: 1.669e12 on the board (a profiler that counts some operations more)."""
    assert len(profile.LENGTHS) == 32 and list(profile.LENGTHS) == sorted(profile.LENGTHS)
    config = EncoderConfig.uniform("hubert", width=768, blocks=12, heads=12, ffn=3072)
    with torch.device("meta"):  # shapes alone
        encoder = SpeechEncoder(config).eval()
    counted = sum(profile.multiply_accumulates(encoder, n) for n in profile.LENGTHS)
    assert counted == pytest.approx(1.669e12, rel=0.01)


def test_multiply_accumulates_closed_form():
    config = EncoderConfig.uniform("hubert", width=32, blocks=2, heads=4, ffn=48, conv=16)
    encoder = SpeechEncoder(config).eval()
    samples = 16000
    frames, previous = samples, 1
    expected = 0
    layers = zip(config.conv_channels, config.conv_kernels, config.conv_strides, strict=True)
    for channels, kernel, stride in layers:
        frames = (frames - kernel) // stride + 1
        expected += frames * channels * previous * kernel
        previous = channels
    expected += frames * previous * 32
    per_output = 32 // config.pos_conv_groups * config.pos_conv_kernel
    with_last = frames + (config.pos_conv_kernel % 2 == 0)  # dropped afterwards
    expected += with_last * 32 * per_output
    expected += 2 * frames * (4 * 32 * 32 + 2 * 32 * 48) + 2 * (2 * frames * frames * 32)
    assert profile.multiply_accumulates(encoder, samples) == expected


def job(**upstreams):
    about = {"method": "", "base": "", "teachers": (), "sparsity": None, "seed": None}
    return SimpleNamespace(
        upstreams={n: SimpleNamespace(kind=kind, **about) for n, kind in upstreams.items()}
    )


def result(upstream, task, metrics, official=False, synthetic=False):
    measured = {"low": 0, "high": 1, "items": 9, "clusters": 3, "unit": "%", "low_is_good": True}
    return {
        "upstream": upstream, "task": task, "title": task, "official": official,
        "synthetic": synthetic, "protocol": "clean", "model": {"parameters": 5},
        "metrics": {name: {"value": v, **measured} for name, v in metrics.items()},
    }  # fmt: skip


def test_table_gathers_results_and_scores_only_official_ones(tmp_path):
    board = {
        "pr": {"per": 5.41}, "asr": {"wer": 6.42, "cer": 2.0}, "ks": {"accuracy": 96.30},
        "qbe": {"mtwv": 0.0736}, "sid": {"accuracy": 81.42}, "asv": {"eer": 5.11},
        "sd": {"der": 5.88, "der_clean": 6.0}, "ic": {"accuracy": 98.34},
        "sf": {"slot_f1": 88.53, "slot_cer": 25.20}, "er": {"accuracy": 64.92},
    }  # fmt: skip
    paths = []
    for name, official in (("hubert", True), ("small", False)):
        for task, metrics in board.items():
            paths.append(tmp_path / name / f"{task}.json")
            write_json(paths[-1], result(name, task, metrics, official=official))
    paths.append(tmp_path / "hubert" / "size.json")
    write_json(paths[-1], {"upstream": "hubert", "parameters": 94, "macs": 7,
                           "real_time_factor": 0.1})  # fmt: skip
    scores.run(paths, job(hubert="teacher", small="student"), tmp_path / "s.json",
              tmp_path / "s.csv")  # fmt: skip
    values = read_json(tmp_path / "s.json")
    assert values["hubert"]["superb_score"] == pytest.approx(941.0, abs=0.5)
    assert "superb_score" not in values["small"] and "superb_rank" not in values["small"]
    rows = read_csv(tmp_path / "s.csv")
    assert rows[0]["task"] == "pr" and rows[0]["parameters"] == "94"
    assert "der_clean" not in {row["metric"] for row in rows}
    with pytest.raises(SkillError, match="small, which the parameters do not have"):
        scores.run(paths, job(hubert="teacher"), tmp_path / "s.json", tmp_path / "s.csv")


def test_comparisons_pair_the_items(tmp_path):
    generator = np.random.default_rng(0)
    for name, errors in (("a-seed1", 1), ("b-seed1", 3), ("a-seed2", 1), ("b-seed3", 3)):
        rows = [
            {"id": f"u{i}", "cluster": f"s{i % 9}", "per": float(generator.integers(0, errors + 1)),
             "per_of": 10.0} for i in range(90)
        ]  # fmt: skip
        write_csv(tmp_path / name / "pr.csv", rows, list(rows[0]))
        write_json(tmp_path / name / "pr.json", {"synthetic": True})
    students = {
        "a": {1: "a-seed1", 2: "a-seed2"},
        "b": {1: "b-seed1", 3: "b-seed3"},
        "absent": {1: "absent-seed1"},
        "unlike": {2: "a-seed2"},
    }
    given = [tmp_path / name / "pr.csv" for name in ("a-seed1", "b-seed1")]
    assert len(scores.comparisons(given, students, resamples=200)) == 1  # the others lie there, too
    given += [tmp_path / name / "pr.csv" for name in ("a-seed2", "b-seed3")]
    found = scores.comparisons(given, students, resamples=200)
    assert [(row["first"], row["second"], row["seeds"]) for row in found] == [
        ("a", "b", 1), ("a", "unlike", 1),
    ]  # fmt: skip
    assert found[0]["difference"] < 0 and found[0]["p_value"] < 0.05
    assert found[1]["difference"] == 0 and found[1]["synthetic"] is True
    write_csv(tmp_path / "b-seed3/pr.csv", [{"id": "u0", "cluster": "s0", "per": 1, "per_of": 10}],
              ["id", "cluster", "per", "per_of"])  # fmt: skip
    with pytest.raises(SkillError, match=r"b-seed3/pr\.csv are not of the same test items"):
        scores.comparisons(given, students, resamples=200)


def test_recurrent_head_ignores_padding():
    torch.manual_seed(0)
    head = heads.RecurrentHead(2, 4, 8, 5, 2, 7, dropout=0.2, spec_augment=True).eval()
    states = torch.randn(2, 2, 12, 4)
    states[:, 0, 7:] = 0
    together = head(states, torch.tensor([7, 12]))
    alone = head(states[:, :1, :7], torch.tensor([7]))
    torch.testing.assert_close(together[0, :7], alone[0])
