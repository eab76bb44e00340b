"""FBANK, the floor of every table: Kaldi's 80 log-mel energies with first and second differences.

25 ms povey windows every 10 ms, no dither, no padding at the edges, as s3prl's baseline. That
also normalises mean and variance per utterance (`normalize`), but not in the published values of
KS, SID, IC and ER (41.38, 20.06, …): there the time mean is classified, which would be zero.
"""

import kaldi_native_fbank
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SAMPLE_RATE = 16000
WINDOW = 400
HOP = 160
BINS = 80
WIDTH = 3 * BINS


def frames(samples: int) -> int:
    """Number of whole windows in `samples`."""
    return (samples - WINDOW) // HOP + 1


def log_mel(waveform: Tensor) -> Tensor:
    """[S] in -1…1 to [T, 80] on the CPU, as torchaudio.compliance.kaldi.fbank(num_mel_bins=80).

    Raises:
        ValueError: the waveform is shorter than one window.
    """
    if waveform.numel() < WINDOW:
        raise ValueError(f"{waveform.numel()} samples are shorter than one 25 ms window")
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = BINS
    computer = kaldi_native_fbank.OnlineFbank(options)
    computer.accept_waveform(SAMPLE_RATE, waveform.tolist())
    computer.input_finished()
    return torch.from_numpy(np.stack([computer.get_frame(t) for t in range(frames(len(waveform)))]))


def differences(features: Tensor) -> Tensor:
    """[T, D] to [T, D]: regression over five frames, Σ n x(t+n) / 10, edges repeated."""
    padded = F.pad(features.T[None], (2, 2), mode="replicate")[0]
    last = features.shape[0]
    change = sum(n * padded[:, 2 + n : 2 + n + last] for n in (-2, -1, 1, 2))
    return torch.as_tensor(change).T / 10.0


def fbank(waveform: Tensor) -> Tensor:
    """[S] to [T, 240]: log-mel energies, their differences, and the differences of those."""
    first = log_mel(waveform)
    second = differences(first)
    return torch.cat([first, second, differences(second)], dim=1)


def normalize(features: Tensor) -> Tensor:
    """[T, D] to mean 0 and standard deviation 1 (unbiased, plus 1e-10) of each dimension over T."""
    return (features - features.mean(dim=0)) / (1e-10 + features.std(dim=0))
