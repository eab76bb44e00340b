"""The same outputs as `torchaudio.models`, both ways."""

from typing import Any

import pytest
import torch
from helpers.encoders import error, gated, pair, utterances

from skill.distillation.pruning import prune
from skill.encoder import SpeechEncoder
from skill.encoder.formats.torchaudio import from_torchaudio, to_torchaudio
from skill.utils.errors import SkillError

models = pytest.importorskip("torchaudio.models")
CONVOLUTIONS = [(24, 10, 5), *[(24, 3, 2)] * 4, *[(24, 2, 2)] * 2]


def theirs(family: str, large: bool) -> Any:
    """The architecture of `helpers.encoders.pair` in torchaudio, random weights."""
    norm = "layer_norm" if large else "group_norm"
    position = (320, 800) if family == "wavlm" else ()
    make = models.wavlm_model if family == "wavlm" else models.wav2vec2_model
    sizes = (64, 0.1, 16, 4, 3, 4, *position)
    model = make(norm, CONVOLUTIONS, large, *sizes, 0.1, 40, 0.0, 0.1, large, 0.0, None)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def assert_equal(model: Any, encoder: SpeechEncoder) -> None:
    for dtype, limit in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        waveforms, lengths = utterances([8000, 5000], dtype)
        # torchaudio's WavLM takes no lengths: its attention asserts that there is no mask.
        given = None if encoder.config.family == "wavlm" else lengths
        model.to(dtype), encoder.to(dtype)
        with torch.no_grad():
            blocks, their_frames = model.extract_features(waveforms, given)
            last, _ = model(waveforms, given)
            states, frames = encoder(waveforms, given)
        if given is not None:
            assert frames.tolist() == their_frames.tolist()
        # extract_features stops before the last layer norm of pre-norm models; forward does not.
        for own, their in zip(states[1:], [*blocks[:-1], last], strict=True):
            for row, count in enumerate(frames.tolist()):
                assert error(own[row, :count], their[row, :count]) < limit


@pytest.mark.parametrize("large", [False, True], ids=["base", "large"])
@pytest.mark.parametrize("family", ["wavlm", "hubert"])
def test_weights_to_torchaudio(family: str, large: bool) -> None:
    _, encoder = pair(family, large)
    model = theirs(family, large)
    model.load_state_dict(to_torchaudio(encoder))
    assert_equal(model, encoder)


@pytest.mark.parametrize("large", [False, True], ids=["base", "large"])
@pytest.mark.parametrize("family", ["wavlm", "hubert"])
def test_weights_from_torchaudio(family: str, large: bool) -> None:
    model, config = theirs(family, large), pair(family, large)[1].config
    encoder = from_torchaudio(config, model.state_dict())
    assert_equal(model, encoder)
    state = model.state_dict()
    state.pop("encoder.transformer.layers.1.final_layer_norm.bias")
    with pytest.raises(SkillError, match=r"encoder.layers.1.final_layer_norm.bias is missing"):
        from_torchaudio(config, state)


def test_a_pruned_encoder_has_no_form_in_torchaudio() -> None:
    with pytest.raises(SkillError, match="pruned"):
        to_torchaudio(prune(gated("wavlm", ("head",))))
