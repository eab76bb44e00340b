"""The heads of SUPERB on top of a learned weighted sum of a frozen upstream's states.

Legend: L states, B utterances, T frames, D width of the upstream, C outputs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class WeightedSum(nn.Module):
    """Σ_l softmax(w)_l state_l: zeros at first, so a plain mean; states are not normalised."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(states))

    def forward(self, states: Tensor) -> Tensor:
        """[L, …] to […]."""
        flat = states.reshape(len(states), -1)
        return (self.weights.softmax(dim=0) @ flat).view(states.shape[1:])


class MeanHead(nn.Module):
    """KS, SID, IC, ER: Linear, mean over time, Linear, without an activation in between.

    Takes time means, too: the mean commutes with everything before it.
    """

    def __init__(self, states: int, width: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.featurizer = WeightedSum(states)
        self.projector = nn.Linear(width, hidden)
        self.classifier = nn.Linear(hidden, outputs)

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """[L, B, D] (means) or [L, B, T, D] with lengths [B] to [B, C]."""
        x = self.projector(self.featurizer(states))
        if x.dim() == 3:
            valid = torch.arange(x.shape[1], device=x.device) < lengths[:, None].to(x.device)
            x = (x * valid[..., None]).sum(dim=1) / lengths[:, None].to(x.device)
        return self.classifier(x)


class FrameHead(nn.Module):
    """PR: two linear layers per frame, without an activation in between."""

    def __init__(self, states: int, width: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.featurizer = WeightedSum(states)
        self.projector = nn.Linear(width, hidden)
        self.classifier = nn.Linear(hidden, outputs)

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """[L, B, T, D] to [B, T, C]."""
        return self.classifier(self.projector(self.featurizer(states)))


class RecurrentHead(nn.Module):
    """ASR, SF: Linear, bidirectional LSTMs each followed by dropout, Linear; packed sequences."""

    def __init__(
        self,
        states: int,
        width: int,
        hidden: int,
        units: int,
        layers: int,
        outputs: int,
        dropout: float,
        spec_augment: bool,
    ) -> None:
        super().__init__()
        self.featurizer = WeightedSum(states)
        self.projector = nn.Linear(width, hidden)
        inputs = [hidden] + [2 * units] * (layers - 1)
        self.recurrent = nn.ModuleList(
            nn.LSTM(size, units, batch_first=True, bidirectional=True) for size in inputs
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2 * units, outputs)
        self.spec_augment = spec_augment

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """[L, B, T, D] with lengths [B] to [B, T, C]."""
        x = self.featurizer(states)
        if self.training and self.spec_augment:
            x = spec_augment(x, lengths)
        x = self.projector(x)
        for layer in self.recurrent:
            packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            x, _ = pad_packed_sequence(layer(packed)[0], batch_first=True)
            x = self.dropout(x)
        return self.classifier(x)


def spec_augment(
    x: Tensor,
    lengths: Tensor,
    warp: int = 5,
    time_masks: int = 2,
    longest_time_mask: int = 40,
    channel_masks: int = 4,
    widest_channel_mask: int = 50,
) -> Tensor:
    """FeatureCache [B, T, D] warped in time and masked with zeros, differently for each utterance.

    Draws from torch's generator. Widths are uniform in 0…limit-1, as in s3prl's configuration.
    """
    warped = [_time_warp(row[: int(length)], warp) for row, length in zip(x, lengths, strict=True)]
    x = nn.utils.rnn.pad_sequence(warped, batch_first=True)
    frames = _unmasked(x, 1, time_masks, longest_time_mask)[:, :, None]
    return x * frames * _unmasked(x, 2, channel_masks, widest_channel_mask)[:, None]


def _unmasked(x: Tensor, axis: int, masks: int, limit: int) -> Tensor:
    """[B, size of the axis]: False within `masks` stretches of at most `limit` - 1."""
    count, size = x.shape[0], x.shape[axis]
    widths = torch.randint(limit, (count, masks), device=x.device)
    starts = torch.randint(max(1, size - int(widths.max())), (count, masks), device=x.device)
    position = torch.arange(size, device=x.device)[:, None]
    masked = (position >= starts[:, None]) & (position < (starts + widths)[:, None])
    return ~masked.any(dim=2)


def _time_warp(x: Tensor, window: int) -> Tensor:
    """[T, D]: a random frame moves by up to `window`; both sides are stretched bicubically."""
    frames = x.shape[0]
    if frames - window <= window:
        return x
    centre = int(torch.randint(window, frames - window, (1,)))
    moved = int(torch.randint(centre - window, centre + window, (1,))) + 1
    left = F.interpolate(x[None, None, :centre], (moved, x.shape[1]), mode="bicubic")
    right = F.interpolate(x[None, None, centre:], (frames - moved, x.shape[1]), mode="bicubic")
    return torch.cat([left[0, 0], right[0, 0]])
