"""The linear probe on frames against scikit-learn and known problems."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from skill.superb.frame_probe import FrameProbe


def clouds(frames: int, spread: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Four classes of 8 dimensions, one of them far from 0 and one constant."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(4, (frames,), generator=draw)
    x = centres[labels] + spread * torch.randn(frames, 8, generator=draw)
    x[:, 0] += 1000
    x[:, 1] = 3
    return x, labels


def test_scikit_learn_finds_the_same_classes() -> None:
    x, y = clouds(1500, 1.0, 1)
    test, truth = clouds(1000, 1.0, 2)
    ours = FrameProbe(x, y, 4).predict(test).numpy()
    mean, scale = x.mean(0), x.std(0).clamp(min=1e-6)
    # mean loss + decay ‖W‖² is scikit-learn's C = 1 / (2 decay N)
    theirs = LogisticRegression(C=1 / (2e-4 * len(x)), max_iter=500)
    theirs.fit(((x - mean) / scale).numpy(), y.numpy())
    expected = theirs.predict(((test - mean) / scale).numpy())
    assert np.mean(ours == expected) > 0.995
    assert abs(np.mean(ours == truth.numpy()) - np.mean(expected == truth.numpy())) < 0.005


def test_what_is_apart_is_told_apart_whatever_the_scale() -> None:
    x, y = clouds(400, 0.05, 3)
    test, truth = clouds(200, 0.05, 4)
    stretch = torch.tensor([1e-3, 1, 1e3, 1, 1, 1, 1, 1])
    for scale in (torch.ones(8), stretch):
        assert torch.equal(FrameProbe(x * scale, y, 4).predict(test * scale), truth)


def test_nothing_to_learn_from_is_an_error() -> None:
    x, y = clouds(10, 1.0, 5)
    with pytest.raises(ValueError, match="two classes"):
        FrameProbe(x, torch.zeros_like(y), 4)
    x[3, 2] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        FrameProbe(x, y, 4)
