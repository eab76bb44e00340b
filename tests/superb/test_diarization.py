"""Diarization: permutation-invariant loss, turns and frames, chunks, mixtures."""

import numpy as np
import pytest
import torch
from torch import nn

from skill.config.tasks import make_task
from skill.superb import diarization
from skill.superb.datasets import constructed
from skill.superb.downstream import value
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
    counts = downstream.counts([recording], [frames])
    assert value("frame_accuracy", counts["frame_accuracy"]) == 100
    assert value("der", counts[diarization.setting_name(1, 0.5)]) == pytest.approx(0, abs=1e-9)
    final = downstream.choose_reported(counts, counts)
    assert set(final) == {"der", "der_clean", "der_superb"}
    head = downstream.build(13, 768)
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
    downstream = diarization.Diarization(make_task("sd", settings), Fold([], [], []), 320)
    head = downstream.build(2, 4)
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
    torch.testing.assert_close(downstream.loss(head, states, lengths, recordings), expected)
