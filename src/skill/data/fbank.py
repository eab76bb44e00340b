"""FBANK, the floor of every table: Kaldi's 80 log-mel energies with first and second differences.

25 ms povey windows every 10 ms, no dither, no padding at the edges, as s3prl's baseline. That
also normalises mean and variance per utterance (`normalize`), but not in the published values of
KS, SID, IC and ER (41.38, 20.06, …): there the time mean is classified, which would be zero.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

SAMPLE_RATE = 16000
WINDOW = 400
HOP = 160
BINS = 80
WIDTH = 3 * BINS
_FFT = 512
_LOWEST_HZ = 20.0
_PREEMPHASIS = 0.97


@cache
def _povey_window() -> Tensor:
    return torch.hann_window(WINDOW, periodic=False).pow(0.85)


def mel(frequency: Tensor) -> Tensor:
    """Hertz to mel: 1127 ln(1 + f/700)."""
    return 1127.0 * torch.log1p(frequency / 700.0)


def hertz(pitch: Tensor) -> Tensor:
    """Mel to hertz, the inverse of `mel`."""
    return 700.0 * torch.expm1(pitch / 1127.0)


@cache
def _mel_filters() -> Tensor:
    """[FFT/2 + 1, 80] triangles, equally spaced and equally wide in mel."""
    limits = mel(torch.tensor([_LOWEST_HZ, SAMPLE_RATE / 2], dtype=torch.float64))
    edges = torch.linspace(float(limits[0]), float(limits[1]), BINS + 2, dtype=torch.float64)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    frequency = mel(torch.arange(_FFT // 2 + 1, dtype=torch.float64) * SAMPLE_RATE / _FFT)[:, None]
    rise = (frequency - left) / (centre - left)
    fall = (right - frequency) / (right - centre)
    filters = torch.minimum(rise, fall).clamp(min=0)
    filters[-1] = 0  # Kaldi leaves out the Nyquist bin
    return filters.float()


def frames(samples: int) -> int:
    """Number of whole windows in `samples`."""
    return (samples - WINDOW) // HOP + 1


def log_mel(waveform: Tensor) -> Tensor:
    """[S] in -1…1 to [T, 80]; equals torchaudio.compliance.kaldi.fbank(num_mel_bins=80).

    Raises:
        ValueError: the waveform is shorter than one window.
    """
    if waveform.numel() < WINDOW:
        raise ValueError(f"{waveform.numel()} samples are shorter than one 25 ms window")
    windows = waveform.unfold(0, WINDOW, HOP)
    windows = windows - windows.mean(dim=1, keepdim=True)
    previous = F.pad(windows[:, None], (1, 0), mode="replicate")[:, 0, :-1]
    windows = (windows - _PREEMPHASIS * previous) * _povey_window()
    power = torch.fft.rfft(windows, n=_FFT).abs().square()
    return (power @ _mel_filters()).clamp(min=torch.finfo(torch.float32).eps).log()


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
