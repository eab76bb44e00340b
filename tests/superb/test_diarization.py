"""Diarization: permutation-invariant loss, turns and frames, chunks, mixtures."""

import numpy as np
import pytest
import torch
from torch import nn

from skill.config.tasks import make_task
from skill.superb import diarization
from skill.superb.datasets import constructed
from skill.superb.examples import Example, Fold
from skill.superb.metrics import Turn


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
    downstream = diarization.Diarization(make_task("sd", {}), Fold([], [], []), 320)
    recording = Example("r", 51200, turns, "x+y", lambda: None)
    counts = downstream.counts([recording], [20 * frames - 10])
    assert 100 * counts["frame_accuracy"].value() == 100
    assert 100 * counts[diarization.setting_name(1, 0.5)].value() == pytest.approx(0, abs=1e-9)
    final = downstream.choose_reported(counts, counts)
    assert set(final) == {"der", "der_clean", "der_superb"}
    head = downstream.build(13, 768)
    expected = 13 + 4 * 512 * (768 + 512) + 8 * 512 + 513 * 2
    assert sum(p.numel() for p in head.parameters()) == expected


def restated_accuracy(logits, targets):
    """s3prl's dev measure of one recording: the naming with the lower loss, then right frames."""
    truth = targets.astype(float)
    odds = np.logaddexp(0, logits.astype(float))
    losses = [(odds - logits * named).mean(1).sum() for named in (truth, truth[:, ::-1])]
    named = truth[:, ::-1] if losses[1] < losses[0] else truth
    return ((logits > 0) == named).sum() / 2 / len(truth) if truth.any() else 0.0


def test_dev_accuracy_is_the_mean_over_recordings_under_the_losses_naming():
    generator = np.random.default_rng(3)
    downstream = diarization.Diarization(make_task("sd", {}), Fold([], [], []), 320)
    recordings, logits, expected, best = [], [], [], []
    for number in range(40):
        frames = int(generator.integers(5, 60))
        starts = np.sort(generator.uniform(0, frames * 0.02, 4))
        turns = (Turn("x", *starts[[0, 2]]), Turn("y", *starts[[1, 3]]))
        turns = turns if number else ()
        recordings.append(Example(f"r{number}", 320 * frames, turns, "x+y", lambda: None))
        # one speaker much surer than the other: fewer right frames may still be the lower loss
        logits.append((generator.normal(0, (0.5, 6), (frames, 2))).astype(np.float32))
        targets = diarization.frame_targets(turns, frames, 320)
        expected.append(restated_accuracy(logits[-1], targets))
        said = logits[-1] > 0
        best.append(max(np.mean(said == targets), np.mean(said == targets[:, ::-1])))
    counts = downstream.counts(recordings, logits)["frame_accuracy"]
    assert 100 * counts.value() == pytest.approx(100 * np.mean(expected), abs=1e-4)
    assert counts[0][0] == 0 and np.mean(expected) < np.mean(best)
    parted = diarization.Diarization(make_task("sd", {"chunk_frames": 10}), Fold([], [], []), 320)
    first = parted.counts(recordings[1:2], logits[1:2])["frame_accuracy"]
    assert first[1] == -(-len(logits[1]) // 10)


def test_features_get_the_labels_length():
    states = torch.arange(24.0).view(1, 2, 4, 3)
    lengths, labels = torch.tensor([4, 2]), torch.tensor([6, 1])
    matched = diarization.match_lengths(states, lengths, labels)
    assert matched.shape == (1, 2, 6, 3)
    torch.testing.assert_close(matched[0, 0, :4], states[0, 0])
    torch.testing.assert_close(matched[0, 0, 4:], states[0, 0, 3:].expand(2, 3))
    torch.testing.assert_close(matched[0, 1, 0], states[0, 1, 0])
    downstream = diarization.Diarization(make_task("sd", {"recurrent": 4}), Fold([], [], []), 320)
    head = downstream.build(1, 3).eval()
    recordings = [Example(f"r{n}", n, (), "x+y", lambda: None) for n in (320 * 6 + 319, 320)]
    answers = downstream.predictions(head, states, lengths, recordings)
    assert [len(rows) for rows in answers] == [6, 1]


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
    downstream = diarization.Diarization(make_task("sd", settings), Fold([], [], []), 320)
    head = downstream.build(2, 4)
    states, lengths = torch.randn(2, 3, 12, 4), torch.tensor([12, 7, 4])
    whole = head(states, lengths)
    for first, last in ((0, 5), (5, 10), (10, 12)):
        alone = head(states[:, :1, first:last], torch.tensor([last - first]))
        torch.testing.assert_close(whole[:1, first:last], alone)
    # speakers may change names between chunks, as recordings do
    turns = (Turn("x", 0.0, 0.1), Turn("y", 0.1, 0.24))
    recordings = [
        Example(f"r{n}", 320 * n + 300, turns, "x+y", lambda: None) for n in lengths.tolist()
    ]
    targets = torch.from_numpy(diarization.frame_targets(turns, 12, 320)).expand(3, -1, -1)
    parts = []
    for first, left in ((0, (5, 5, 4)), (5, (5, 2)), (10, (2,))):
        rows = len(left)
        loss, _ = diarization.permutation_loss(
            whole[:rows, first : first + 5], targets[:rows, first : first + 5], torch.tensor(left)
        )
        parts.append(loss * sum(left))
    expected = sum(parts) / 23
    torch.testing.assert_close(downstream.loss(head, states, lengths, recordings), expected)
