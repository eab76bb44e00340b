"""Distances between representations.

Axes: B utterances, T frames, D width. Every distance is a mean over all its axes.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of [B, T, D] and [B, T, D]."""
    return F.l1_loss(prediction, target)


def l2(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference."""
    return F.mse_loss(prediction, target)


def cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """Minus the mean cosine of frames, −mean cos(p_t, h_t): DPHuBERT's second term."""
    return -F.cosine_similarity(prediction, target, dim=-1).mean()


def log_sigmoid_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """−mean log σ(cos(p_t, h_t)): DistilHuBERT, equation 1 (arXiv:2110.01900)."""
    return -F.logsigmoid(F.cosine_similarity(prediction, target, dim=-1)).mean()


DISTANCES = {"l1": l1, "l2": l2, "cosine": cosine, "log_sigmoid_cosine": log_sigmoid_cosine}


def distance(prediction: Tensor, target: Tensor, weights: Mapping[str, float]) -> Tensor:
    """Weighted sum of the distances named in `weights`, computed in float32.

    Raises:
        KeyError: an unknown distance.
    """
    prediction, target = prediction.float(), target.float()
    total = torch.zeros((), device=prediction.device)
    for name, weight in weights.items():
        if weight:
            total = total + weight * DISTANCES[name](prediction, target)
    return total
