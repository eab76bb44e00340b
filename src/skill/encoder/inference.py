"""How an encoder is run over audio, wherever states are wanted and nothing is trained.

Axes: S samples (16 kHz), L states, T frames, D width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .model import SpeechEncoder


@torch.no_grad()
def hidden_states(encoder: SpeechEncoder, waveforms: Sequence[NDArray[np.float32]]) -> list[Tensor]:
    """States [L, T, D] in float32 of each waveform [S], computed as one batch.

    Frames of padding are cut off. Whether padding changes the others: `encoder.exact_padding`.
    """
    device = next(encoder.parameters()).device
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    rows = [torch.from_numpy(waveform) for waveform in waveforms]
    batch = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    states, frames = encoder(batch.to(device), lengths.to(device))
    stacked = torch.stack([state.float() for state in states])
    return [stacked[:, row, : int(count)] for row, count in enumerate(frames)]
