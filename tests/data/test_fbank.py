"""FBANK against torchaudio and against its formula in float64."""

import pytest
import torch

from skill.data import fbank


def test_fbank_equals_torchaudio():
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi")
    transforms = pytest.importorskip("torchaudio.transforms")
    waveform = torch.randn(12345, generator=torch.Generator().manual_seed(0)) * 0.1
    expected = kaldi.fbank(waveform[None], num_mel_bins=80, sample_frequency=16000)
    torch.testing.assert_close(fbank.log_mel(waveform), expected, atol=2e-3, rtol=1e-4)
    delta = transforms.ComputeDeltas(win_length=5)
    torch.testing.assert_close(fbank.differences(expected), delta(expected.T[None])[0].T)
    assert fbank.fbank(waveform).shape == (fbank.frames(12345), 240)


def test_fbank_refuses_less_than_a_window():
    with pytest.raises(ValueError, match="399"):
        fbank.log_mel(torch.zeros(399))


def test_fbank_equals_its_formula():
    """Windows less their mean, pre-emphasis, povey window, power spectrum, mel triangles, log."""
    waveform = torch.randn(16_000, generator=torch.Generator().manual_seed(1)) * 0.1
    windows = waveform.double().unfold(0, 400, 160)
    windows = windows - windows.mean(1, keepdim=True)
    previous = torch.cat([windows[:, :1], windows[:, :-1]], 1)
    povey = torch.hann_window(400, periodic=False, dtype=torch.float64) ** 0.85
    power = torch.fft.rfft((windows - 0.97 * previous) * povey, n=512).abs() ** 2
    pitch = 1127 * torch.log1p(torch.arange(257, dtype=torch.float64)[:, None] * 31.25 / 700)
    lowest, highest = (1127 * torch.log1p(torch.tensor([20.0, 8000.0]) / 700)).tolist()
    edges = torch.linspace(lowest, highest, 82, dtype=torch.float64)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rise, fall = (pitch - left) / (centre - left), (right - pitch) / (right - centre)
    triangles = torch.minimum(rise, fall).clamp(min=0)
    triangles[-1] = 0  # Kaldi leaves out the Nyquist bin
    expected = (power @ triangles).log()
    torch.testing.assert_close(fbank.log_mel(waveform).double(), expected, atol=2e-4, rtol=0)
