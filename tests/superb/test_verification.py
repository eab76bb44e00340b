"""Speaker verification: x-vector, additive-margin softmax, trials."""

import numpy as np
import pytest
import torch

from skill.config.tasks import PROTOCOL, make_task
from skill.superb import verification
from skill.superb.examples import Example, Fold, Trial
from skill.superb.verification import XVector, additive_margin_loss


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
    downstream = verification.Verification(make_task("asv", {}), fold)
    vectors = np.eye(2)[[0, 1, 0, 1, 0, 0, 1, 1]]
    both = downstream.counts(downstream.dev_examples(), vectors)
    assert 100 * both["eer"].value() == 0 and 100 * both["eer_test"].value() == 100
    alone = downstream.counts(made[4:], vectors[4:])
    assert list(alone) == ["eer"] and 100 * alone["eer"].value() == 100
    assert downstream.items(made[4:]) == [("u4:u6", "s0"), ("u4:u5", "s0")]
