"""FBANK, and hidden states from the cache."""

import numpy as np
import pytest
import torch
from tone_corpus import spoken

from skill.config.tasks import PROTOCOL, make_task
from skill.data import fbank
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.superb import heads
from skill.superb.examples import Example
from skill.superb.feature_cache import FeatureCache
from skill.superb.upstream import Encoder, Fbank, load_upstream
from skill.utils.errors import SkillError


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    config = EncoderConfig.uniform("wavlm", width=16, blocks=2, heads=2, ffn=32, conv=16)
    return Encoder(SpeechEncoder(config))


@pytest.mark.parametrize("task", ["pr", "sid"])
def test_fbank_is_normalised_where_the_protocol_normalises(task):
    waveform = np.random.default_rng(0).normal(0, 0.1, 12345).astype(np.float32)
    upstream = load_upstream(None, fbank_cmvn=make_task(task, {}).fbank_cmvn)
    (states,) = upstream([waveform])
    plain = fbank.fbank(torch.from_numpy(waveform))
    if task == "sid":  # pooled: its time mean would be zero
        torch.testing.assert_close(states[0], plain)
        return
    torch.testing.assert_close(states[0], (plain - plain.mean(0)) / (1e-10 + plain.std(0)))
    assert states[0].mean(0).abs().max() < 1e-5
    torch.testing.assert_close(states[0].std(0), torch.ones(240))
    plain_tasks = {name for name, task in PROTOCOL.items() if not task.fbank_cmvn}
    assert plain_tasks == {name for name, task in PROTOCOL.items() if task.kind == "labels"}
    with pytest.raises(SkillError, match=r"sid\.fbank_cmvn: .* means over time, which are zero"):
        make_task("sid", {"fbank_cmvn": True})


def test_time_means_give_the_same_logits_as_all_frames(encoder):
    examples = spoken(6)
    torch.manual_seed(1)
    head = heads.MeanHead(encoder.states, encoder.width, 256, 12)
    head.featurizer.weights.data.normal_()
    means, ones = FeatureCache(encoder, pooled=True).batch(examples)
    whole, lengths = FeatureCache(encoder, pooled=False).batch(examples)
    assert means.shape == (3, 6, 16) and len(set(lengths.tolist())) > 1
    torch.testing.assert_close(head(means, ones), head(whole, lengths), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pooled", [True, False])
def test_cache_changes_neither_order_nor_states(encoder, pooled):
    examples = spoken(7)
    fresh = FeatureCache(encoder, pooled, cache_bytes=0)
    partly = FeatureCache(encoder, pooled, cache_bytes=900 if pooled else 8_000)
    partly.prepare(examples, "test")
    assert 0 < len(partly.cached) < 7 and partly.bytes_left >= 0
    assert {x.dtype for x in partly.cached.values()} == {torch.float32 if pooled else torch.float16}
    states, lengths = fresh.batch(examples)
    for index, example in enumerate(examples):
        alone, frames = fresh.batch([example])
        assert int(frames[0]) == int(lengths[index])
        own = states[:, index] if pooled else states[:, index, : int(frames[0])]
        torch.testing.assert_close(own, alone[:, 0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(partly.batch(examples)[0], states, atol=2e-3, rtol=2e-3)


def test_short_audio_is_named():
    short = Example("tiny", 100, ["B"], "s", lambda: np.zeros(100, dtype=np.float32))
    with pytest.raises(SkillError, match="tiny: 100 samples"):
        FeatureCache(Fbank(), pooled=True).batch([short])


def test_states_beyond_half_precision_are_the_same_with_and_without_the_cache():
    class Loud(Fbank):
        def __call__(self, waveforms):
            return [1e5 * states for states in super().__call__(waveforms)]

    examples = spoken(3)
    cached, fresh = (
        FeatureCache(Loud(), pooled=False),
        FeatureCache(Loud(), pooled=False, cache_bytes=0),
    )
    cached.prepare(examples, "test")
    fresh.prepare(examples, "test")
    assert set(cached.cached) == {e.id for e in examples} and not fresh.cached
    (a, _), (b, _) = cached.batch(examples), fresh.batch(examples)
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    assert torch.isfinite(a).all() and a.abs().max() > 65504
