"""The start of the sample teachers' convolutions: what each layer gives."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from skill.config.pretraining import Pretraining, PretrainingRound, PretrainingTarget
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.encoder.gating import GateSample
from skill.teachers import filterbank_init

BANDS, LEVELS = 16, 4


def started() -> SpeechEncoder:
    plain = EncoderConfig.uniform("wavlm", width=32, blocks=1, heads=2, ffn=8)
    encoder = SpeechEncoder(filterbank_init.shaped(plain, BANDS, LEVELS)).eval()
    filterbank_init.start(encoder)
    return encoder


def after(encoder: SpeechEncoder, waveform: Tensor, layers: int) -> Tensor:
    """[C, T] of the first convolutions."""
    x, gates = waveform[None, None], GateSample()
    with torch.no_grad():
        for layer in encoder.convolutions[:layers]:
            x, gates = layer(x, None, gates)
    return x[0]


def test_a_frame_is_twenty_milliseconds() -> None:
    encoder = started()
    assert encoder.frames(16000 + 565) - encoder.frames(565) == 50


def test_the_first_convolution_lets_the_waveform_through_but_for_its_level() -> None:
    torch.manual_seed(0)
    waveform = 0.1 * torch.randn(16000)
    passed = after(started(), waveform, 1)
    samples = (passed[0::2] - passed[1::2]).t().flatten()
    assert samples.std() == pytest.approx(1.0, abs=1e-2)
    assert torch.corrcoef(torch.stack([samples, waveform[: len(samples)]]))[0, 1] > 0.9995


def test_a_thousand_hertz_are_a_thousand_mel_and_back() -> None:
    assert float(filterbank_init.mel(torch.tensor(1000.0))) == pytest.approx(1000, abs=0.1)
    frequencies = torch.tensor([0.0, 60.0, 440.0, 5600.0], dtype=torch.float64)
    assert torch.allclose(filterbank_init.hertz(filterbank_init.mel(frequencies)), frequencies)


@pytest.mark.parametrize("band", [2, 8, 13])
def test_three_rectified_phases_are_the_amplitude_of_a_sinusoid(band: int) -> None:
    lowest, highest = filterbank_init.mel(torch.tensor([60.0, 5600.0])).tolist()
    hertz = float(filterbank_init.hertz(torch.linspace(lowest, highest, BANDS + 2)[band + 1]))
    wave = torch.sin(2 * math.pi * hertz * torch.arange(16000) / 16000)
    bands = after(started(), wave, 2).reshape(BANDS, 3, -1).sum(1)
    assert bands.mean(1).argmax() == band
    own = bands[band]
    assert (own.max() - own.min()) / own.mean() < 0.15
    # A real sinusoid of deviation 1 excites a filter of unit sum by half its amplitude.
    gain = filterbank_init._GAIN * (hertz / 500 + 1)
    assert own.mean() == pytest.approx(gain * math.sqrt(2) / 2 * 0.95, rel=0.1)


def test_levels_are_bounded_and_lower_where_it_is_louder() -> None:
    torch.manual_seed(0)
    swell = torch.randn(32000) * torch.logspace(-3, 0, 32000)
    levels = after(started(), swell, 3)
    assert levels.min() > -0.2 and levels.max() < 2.01
    steps = F.avg_pool1d(levels.reshape(BANDS, LEVELS, -1).sum(1), 10)
    assert (steps[:, -1] < steps[:, 0] - 0.5).all()


def test_a_louder_utterance_has_the_same_features() -> None:
    torch.manual_seed(0)
    waveform = torch.randn(1, 8000)
    encoder = started()
    with torch.no_grad():
        loud, soft = encoder.project(waveform)[0], encoder.project(0.1 * waveform)[0]
    assert torch.allclose(loud, soft, atol=1e-2)


def test_two_blocks_of_a_sample_teacher_are_a_quarter_of_it() -> None:
    """So that DistilHuBERT's and EKD's students are as large as those pruned to 75 %."""
    once = PretrainingRound(
        steps=1, warmup=0, learning_rate=1e-3, targets=(PretrainingTarget(features="spectrum"),)
    )
    made = Pretraining(family="wavlm", rounds=(once,), pos_conv_kernel=32)
    sizes = []
    for blocks in (2, 12):
        plain = EncoderConfig.uniform(
            "wavlm", width=made.width, blocks=blocks, heads=made.heads, ffn=made.ffn,
            pos_conv_kernel=made.pos_conv_kernel,
        )  # fmt: skip
        encoder = SpeechEncoder(filterbank_init.shaped(plain, made.bands, made.levels))
        sizes.append(encoder.num_parameters())
    assert sizes[0] / sizes[1] == pytest.approx(0.25, rel=0.01)
