"""The convolutions of the sample teachers, and their start as a filter bank.

With hours of audio, masked prediction does not find a precise spectrum in the waveform by itself,
and what tells voices apart is lost (docs/decisions.md). So there are three convolutions instead of
seven, and their first weights are written down:

1. Samples pass in steps of 5, each as x and as -x: GELU(x) - GELU(-x) = x, so the next convolution
   sees the waveform, of which the group norm has taken the level.
2. Gabor filters in mel-spaced bands, each in three phases, every 10 ms. The three rectified phases
   of a sinusoid sum to its amplitude within 7 %.
3. Levels: b - a / l, rectified, of each band's amplitude a, for geometrically spaced l. They are
   bounded, whatever the amplitude is, and a sum of them follows its logarithm.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from skill.encoder import EncoderConfig, SpeechEncoder

_RATE = 16000
_STEP = 5  # samples, of the first convolution
_WINDOW = 400  # samples: 25 ms
_HOP = 160  # samples: 10 ms
_PHASES = 3
_LOWEST, _HIGHEST = 60.0, 5600.0  # Hz; all sample audio ends at 5.5 kHz
_NARROWEST = 80.0  # Hz: what 25 ms can tell apart
_GAIN = 100.0  # of a filter, relative to the waveform's deviation of 1
_SOFTEST, _LOUDEST = 0.05, 120.0  # of the amplitudes that the levels cover, after the gain


def mel(frequency: Tensor) -> Tensor:
    """Hertz to mel: 1127 ln(1 + f/700)."""
    return 1127.0 * torch.log1p(frequency / 700.0)


def hertz(pitch: Tensor) -> Tensor:
    """Mel to hertz, the inverse of `mel`."""
    return 700.0 * torch.expm1(pitch / 1127.0)


def shaped(config: EncoderConfig, bands: int, levels: int) -> EncoderConfig:
    """`config` with this module's three convolutions in the place of its own."""
    channels = (2 * _STEP, _PHASES * bands, levels * bands)
    return replace(
        config,
        conv_channels=channels,
        conv_full_width=channels[-1],
        conv_kernels=(2 * _STEP, _WINDOW // _STEP, 2),
        conv_strides=(_STEP, _HOP // _STEP, 2),
        conv_bias=True,
    )


def gabor(bands: int) -> Tensor:
    """Filters [bands, phases, window], highs lifted as speech falls."""
    lowest, highest = mel(torch.tensor([_LOWEST, _HIGHEST], dtype=torch.float64)).tolist()
    edges = hertz(torch.linspace(lowest, highest, bands + 2, dtype=torch.float64))
    time = (torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2) / _RATE
    filters = torch.zeros(bands, _PHASES, _WINDOW, dtype=torch.float64)
    for band in range(bands):
        width = max(float(edges[band + 2] - edges[band]), _NARROWEST)
        # A Hann window of n samples is 1.44 / n of the rate wide at half its height; both sides.
        length = min(_WINDOW, int(2 * 1.44 * _RATE / width) // 2 * 2)
        window = torch.hann_window(length, periodic=False, dtype=torch.float64)
        inside = slice((_WINDOW - length) // 2, (_WINDOW + length) // 2)
        for phase in range(_PHASES):
            turn = 2 * math.pi * phase / _PHASES
            wave = torch.cos(2 * math.pi * edges[band + 1] * time[inside] + turn)
            filters[band, phase, inside] = window / window.sum() * wave
        filters[band] *= _GAIN * (edges[band + 1] / 500.0 + 1.0)
    return filters.float()


@torch.no_grad()
def start(encoder: SpeechEncoder) -> None:
    """Write the filter bank into the convolutions of an encoder that is `shaped` for it."""
    first, second, third = (layer.conv for layer in encoder.convolutions)
    bands = second.out_channels // _PHASES
    levels = third.out_channels // bands
    for conv in (first, second, third):
        conv.weight.zero_()
        conv.bias.zero_()  # type: ignore[union-attr]
    for sample in range(_STEP):
        first.weight[2 * sample, 0, sample] = 1.0
        first.weight[2 * sample + 1, 0, sample] = -1.0
    taps = gabor(bands).reshape(bands * _PHASES, -1, _STEP).transpose(1, 2)
    second.weight[:, 0::2] = taps
    second.weight[:, 1::2] = -taps
    ratio = (_LOUDEST / _SOFTEST) ** (1 / max(1, levels - 1))
    for band in range(bands):
        phases = slice(_PHASES * band, _PHASES * (band + 1))
        for level in range(levels):
            # The mean of two frames' amplitudes, in units of the level.
            third.weight[levels * band + level, phases] = -1.0 / (_SOFTEST * ratio**level)
            third.bias[levels * band + level] = 2.0  # type: ignore[index]
