"""Multiply-accumulates against closed forms and the leaderboard."""

import pytest
import torch

from skill.encoder import EncoderConfig, SpeechEncoder
from skill.superb import profile


def test_leaderboards_lengths_give_its_macs():
    """HuBERT Base: 1.669e12 on the board (a profiler that counts some operations more)."""
    assert len(profile.LENGTHS) == 32 and list(profile.LENGTHS) == sorted(profile.LENGTHS)
    config = EncoderConfig.uniform("hubert", width=768, blocks=12, heads=12, ffn=3072)
    with torch.device("meta"):  # shapes alone
        encoder = SpeechEncoder(config).eval()
    counted = sum(profile.multiply_accumulates(encoder, n) for n in profile.LENGTHS)
    assert counted == pytest.approx(1.669e12, rel=0.01)


def test_multiply_accumulates_closed_form():
    config = EncoderConfig.uniform("hubert", width=32, blocks=2, heads=4, ffn=48, conv=16)
    encoder = SpeechEncoder(config).eval()
    samples = 16000
    frames, previous = samples, 1
    expected = 0
    layers = zip(config.conv_channels, config.conv_kernels, config.conv_strides, strict=True)
    for channels, kernel, stride in layers:
        frames = (frames - kernel) // stride + 1
        expected += frames * channels * previous * kernel
        previous = channels
    expected += frames * previous * 32
    per_output = 32 // config.pos_conv_groups * config.pos_conv_kernel
    with_last = frames + (config.pos_conv_kernel % 2 == 0)  # dropped afterwards
    expected += with_last * 32 * per_output
    expected += 2 * frames * (4 * 32 * 32 + 2 * 32 * 48) + 2 * (2 * frames * frames * 32)
    assert profile.multiply_accumulates(encoder, samples) == expected
