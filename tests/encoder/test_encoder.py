"""The encoder equals `transformers` and `torchaudio`, whatever the architecture and the padding."""

import pytest
import torch
from helpers.encoders import REFERENCES, error, pair, reference_states, utterances
from hypothesis import given, settings
from hypothesis import strategies as st

from skill.encoder import EncoderConfig, SpeechEncoder


@pytest.mark.parametrize("large", [False, True], ids=["base", "large"])
@pytest.mark.parametrize("family", list(REFERENCES))
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@torch.no_grad()
def test_every_state_equals_transformers(
    family: str, large: bool, dtype: torch.dtype, limit: float
) -> None:
    reference, encoder = pair(family, large)
    reference.to(dtype), encoder.to(dtype)
    waveforms, lengths = utterances([8000, 5000, 6500], dtype)
    states, frames = encoder(waveforms)
    for own, theirs in zip(states, reference_states(reference, waveforms, None), strict=True):
        assert error(own, theirs) < limit
    mask = (torch.arange(8000) < lengths[:, None]).long()
    states, frames = encoder(waveforms, lengths)
    assert frames.tolist() == reference._get_feat_extract_output_lengths(lengths).tolist()
    for own, theirs in zip(states, reference_states(reference, waveforms, mask), strict=True):
        for row, count in enumerate(frames.tolist()):
            assert error(own[row, :count], theirs[row, :count]) < limit


@pytest.mark.parametrize("family", list(REFERENCES))
@pytest.mark.parametrize("padded", [False, True])
def test_gradients_equal_those_of_transformers(family: str, padded: bool) -> None:
    """In training a position bias needs a gradient, and attention goes another way."""
    reference, encoder = pair(family, large=False)
    reference.double(), encoder.double()
    waveforms, lengths = utterances([8000, 5000], torch.float64)
    mask = (torch.arange(8000) < lengths[:, None]).long() if padded else None
    states, frames = encoder(waveforms, lengths if padded else None)
    theirs = reference_states(reference, waveforms, mask)
    rows = zip(states[-1], theirs[-1], frames.tolist(), strict=True)
    loss, expected = 0.0, 0.0
    for own, their, count in rows:
        loss, expected = (
            loss + own[:count].square().mean(),
            expected + their[:count].square().mean(),
        )
    torch.as_tensor(loss).backward()
    torch.as_tensor(expected).backward()
    gradients = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
    for name, parameter in encoder.named_parameters():
        if parameter.grad is not None and float(gradients[name].norm()) > 1e-12:
            assert error(parameter.grad, gradients[name]) < 1e-8, name


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(list(REFERENCES)),
    st.booleans(),
    st.integers(1, 4),
    st.integers(1, 3),
    st.lists(st.integers(800, 5000), min_size=1, max_size=3),
    st.integers(0, 1000),
)
@torch.no_grad()
def test_any_small_configuration_equals_transformers(
    family: str, large: bool, heads: int, blocks: int, lengths: list[int], seed: int
) -> None:
    reference, encoder = pair(family, large, heads=heads, blocks=blocks, seed=seed)
    reference.double(), encoder.double()
    waveforms, given_lengths = utterances(lengths, torch.float64, seed)
    mask = (torch.arange(max(lengths)) < given_lengths[:, None]).long()
    states, frames = encoder(waveforms, given_lengths)
    for own, theirs in zip(states, reference_states(reference, waveforms, mask), strict=True):
        for row, count in enumerate(frames.tolist()):
            assert error(own[row, :count], theirs[row, :count]) < 1e-10


@pytest.mark.parametrize("large", [False, True], ids=["base", "large"])
@torch.no_grad()
def test_exact_padding_equals_single_utterances(large: bool) -> None:
    _, encoder = pair("wavlm", large)
    encoder.double()
    lengths = [8000, 4321, 6500]
    waveforms, given_lengths = utterances(lengths, torch.float64)
    encoder.exact_padding = True
    states, frames = encoder(waveforms, given_lengths)
    for row, (length, count) in enumerate(zip(lengths, frames.tolist(), strict=True)):
        alone, _ = encoder(waveforms[row : row + 1, :length])
        assert alone[0].shape[1] == count
        for padded, single in zip(states, alone, strict=True):
            torch.testing.assert_close(padded[row, :count], single[0])


@torch.no_grad()
def test_group_norm_of_base_models_sees_padding_by_default() -> None:
    _, encoder = pair("hubert", large=False)
    waveforms, lengths = utterances([8000, 4000], torch.float32)
    states, frames = encoder(waveforms, lengths)
    alone, _ = encoder(waveforms[1:, :4000])
    assert error(states[0][1, : frames[1]], alone[0][0]) > 1e-3


@torch.no_grad()
def test_normalised_waveforms_are_those_of_the_feature_extractor() -> None:
    reference, encoder = pair("wav2vec2", large=True)
    from dataclasses import replace

    encoder.config = replace(encoder.config, normalize_waveform=True)
    waveforms, lengths = utterances([8000, 5000], torch.float32)
    from transformers import Wav2Vec2FeatureExtractor

    extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    raw = [w[:n].numpy() for w, n in zip(waveforms, lengths.tolist(), strict=True)]
    batch = extractor(raw, sampling_rate=16000, padding=True, return_tensors="pt")
    theirs = reference_states(reference, batch["input_values"], batch["attention_mask"])
    states, frames = encoder(waveforms, lengths)
    for own, their in zip(states, theirs, strict=True):
        for row, count in enumerate(frames.tolist()):
            assert error(own[row, :count], their[row, :count]) < 1e-5


@torch.no_grad()
def test_iterate_yields_the_projection_and_then_the_states() -> None:
    _, encoder = pair("hubert", large=False)
    waveforms, _ = utterances([6000], torch.float32)
    names, found = zip(*encoder.iterate(waveforms), strict=True)
    assert names == ("projection", 0, 1, 2, 3)
    for own, state in zip(encoder(waveforms)[0], found[1:], strict=True):
        assert torch.equal(own, state)


def test_base_sizes_are_the_published_ones() -> None:
    with torch.device("meta"):
        sizes = {
            f: SpeechEncoder(EncoderConfig.base(f)).num_parameters() for f in ("wavlm", "hubert")
        }
    assert sizes == {"wavlm": 94_381_936 - 768, "hubert": 94_371_712 - 768}


def test_too_short_a_waveform_is_an_error() -> None:
    _, encoder = pair("hubert", large=False)
    with pytest.raises(ValueError, match="399 samples is shorter than one frame"):
        encoder(torch.zeros(1, 399))
    assert encoder(torch.zeros(1, 400))[0][0].shape[1] == 1
    with pytest.raises(ValueError, match="lengths say 801 samples; there are 800"):
        encoder(torch.zeros(2, 800), torch.tensor([801, 500]))
    with pytest.raises(ValueError, match=r"lengths have the shape \[1\] for 2 waveforms"):
        encoder(torch.zeros(2, 800), torch.tensor([800]))


@pytest.mark.parametrize(
    "waveforms", [torch.zeros(800), torch.zeros(1, 1, 800), torch.zeros(1, 800, dtype=torch.int16)]
)
def test_waveforms_of_another_kind_are_an_error(waveforms: torch.Tensor) -> None:
    _, encoder = pair("hubert", large=False)
    with pytest.raises(ValueError, match=r"torch\..* of the shape \[.*\], not floats \[B, S\]"):
        encoder(waveforms)


@torch.no_grad()
def test_the_precision_of_waveforms_need_not_be_that_of_the_weights() -> None:
    """As audio libraries return them: float64 and float32."""
    _, encoder = pair("wavlm", large=True)
    waveforms = utterances([4000], torch.float64)[0]
    expected = encoder(waveforms.float())[0][-1]
    assert torch.equal(encoder(waveforms)[0][-1], expected)
    for dtype, limit in ((torch.float64, 1e-5), (torch.bfloat16, 0.03)):
        states = encoder.to(dtype)(waveforms.float())[0]
        assert {state.dtype for state in states} == {dtype}
        assert error(states[-1].float(), expected) < limit


def test_configuration_round_trip_and_mistakes() -> None:
    config = EncoderConfig.large("wavlm")
    assert EncoderConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="unknown keys in the encoder configuration: hats"):
        EncoderConfig.from_dict(config.to_dict() | {"hats": 1})
    with pytest.raises(ValueError, match="width"):
        EncoderConfig.from_dict({"family": "wavlm"})
