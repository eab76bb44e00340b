"""Heads: parameter counts, weighted sum, padding, SpecAugment."""

import pytest
import torch

from skill.config.tasks import PROTOCOL
from skill.superb import heads
from skill.superb.downstream import Classification, Transcription
from skill.superb.examples import Fold


@pytest.mark.parametrize(
    ("name", "outputs", "parameters"),
    [
        ("pr", 74, 196_864 + 19_018),
        ("asr", 32, 787_456 + 16_793_600 + 25_182_208 + 65_568),
        ("ks", 12, 196_864 + 257 * 12),
        ("sid", 1251, 196_864 + 257 * 1251),
        ("ic", 24, 196_864 + 257 * 24),
    ],
)
def test_parameter_counts_of_the_protocol(name, outputs, parameters):
    task = PROTOCOL[name]
    if task.kind == "ctc":
        head = Transcription(task, Fold([], [], [])).build(13, 768)
    else:
        fold = Fold([], [], [], labels=(tuple(map(str, range(outputs))),))
        head = Classification(task, fold).build(13, 768)
    assert sum(p.numel() for p in head.parameters()) == parameters + 13


def test_weighted_sum_starts_as_the_mean_and_does_not_normalise():
    states = torch.randn(5, 2, 7, 3) * 10
    layer = heads.WeightedSum(5)
    torch.testing.assert_close(layer(states), states.mean(0))
    layer.weights.data[2] = 50.0
    torch.testing.assert_close(layer(states), states[2])


def test_spec_augment_masks_and_keeps_lengths():
    torch.manual_seed(0)
    x = torch.ones(3, 120, 80)
    lengths = torch.tensor([120, 90, 30])
    out = heads.spec_augment(x, lengths)
    assert out.shape == x.shape
    assert (out[1, 90:] == 0).all() and (out[2, 30:] == 0).all()
    assert set(out.round(decimals=2).unique().tolist()) == {0.0, 1.0}  # a warped constant is one
    assert 0 < (out[0] == 0).float().mean() < 0.95


def test_spec_augment_draws_two_stretches_of_time_and_four_of_channels():
    torch.manual_seed(0)
    drawn = heads.spec_augment(torch.ones(200, 400, 600), torch.full((200,), 400)) > 0.5
    for shown, masks, widest in ((drawn.any(dim=2), 2, 40), (drawn.any(dim=1), 4, 50)):
        edges = torch.diff(shown.int(), prepend=torch.ones(200, 1), append=torch.ones(200, 1))
        assert int((edges == -1).sum(dim=1).max()) == masks
        hidden = (~shown).sum(dim=1).float()
        assert hidden.max() <= masks * (widest - 1)
        assert float(hidden.mean()) == pytest.approx(masks * (widest - 1) / 2, rel=0.15)


def test_recurrent_head_ignores_padding():
    torch.manual_seed(0)
    head = heads.RecurrentHead(2, 4, 8, 5, 2, 7, dropout=0.2, spec_augment=True).eval()
    states = torch.randn(2, 2, 12, 4)
    states[:, 0, 7:] = 0
    together = head(states, torch.tensor([7, 12]))
    alone = head(states[:, :1, :7], torch.tensor([7]))
    torch.testing.assert_close(together[0, :7], alone[0])
