"""Masked prediction: features, masks, mixing, and both rounds in small."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skill.config.jobs import PretrainingJob
from skill.config.load import load
from skill.config.params import Corpus, Pretraining, Training, Unlabelled
from skill.data.corpora import prepare
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.encoder.checkpoint import load_encoder
from skill.teachers import masked_prediction, pretraining, pseudo_labels
from skill.training.loop import Micro
from skill.utils.files import read_header

ROOT = Path(__file__).parents[2]


@given(st.integers(800, 20_000))
def test_mfcc_have_one_vector_per_frame_of_the_encoder(samples: int) -> None:
    waveform = np.random.default_rng(samples).normal(size=samples).astype(np.float32)
    with torch.device("meta"):
        config = EncoderConfig.uniform("hubert", width=64, blocks=1, heads=2, ffn=8, conv=4)
        frames = SpeechEncoder(config).frames(samples)
    found = pseudo_labels.mfcc(waveform)
    assert abs(len(found) - frames) <= 1
    assert found.shape[1] == 39


@given(st.integers(1, 4), st.integers(1, 200), st.floats(0.1, 0.9))
def test_masks_are_spans_and_never_everything_of_a_long_utterance(
    batch: int, frames: int, probability: float
) -> None:
    mask = masked_prediction.mask_spans((batch, frames), probability, span=10)
    assert mask.shape == (batch, frames)
    assert mask.any(1).all()
    if frames >= 40:
        edges = torch.diff(mask.int(), dim=1, prepend=torch.zeros(batch, 1).int())
        for row in range(batch):
            starts = torch.nonzero(edges[row] == 1).flatten().tolist()
            for start in starts:
                assert mask[row, start : start + 10].all()


def test_mixing_overlays_at_most_half_and_keeps_the_rest() -> None:
    torch.manual_seed(0)
    waveforms = torch.randn(6, 1000)
    mixed = masked_prediction.mix(waveforms, probability=1.0)
    changed = (mixed != waveforms).sum(1)
    assert (changed > 0).all() and (changed <= 500).all()
    assert torch.equal(masked_prediction.mix(waveforms, probability=0.0), waveforms)


def test_labels_follow_the_crop() -> None:
    from skill.data.batches import MicroBatch
    from skill.data.manifest import Utterance

    utterance = Utterance("u", "c", "p", 0, 3200 * 3)
    labels = {"u": np.arange(29)}
    batch = MicroBatch((utterance, utterance), (0, 3200 + 10), 3200)
    assert pretraining._aligned(batch, labels, 9).tolist() == [
        list(range(9)),
        list(range(10, 19)),
    ]


@pytest.mark.parametrize("name", ["wavlm-sample", "hubert-sample"])
def test_the_stored_teachers_are_what_the_parameters_make(name: str) -> None:
    made = read_header(ROOT / f"data/teachers/{name}.safetensors")["provenance"]
    preset = load(ROOT / "presets/study.yaml")
    assert made["params"]["pretraining"] == preset.pretraining[name].model_dump(mode="json")
    assert made["params"]["unlabelled"] == preset.unlabelled.model_dump(mode="json")
    assert made["validation"]["validation_masked_accuracy"] > 0.05


def test_the_model_can_learn_a_small_batch_by_heart() -> None:
    torch.manual_seed(0)
    config = EncoderConfig.uniform(
        "hubert", width=32, blocks=2, heads=2, ffn=64, conv=16, pos_conv_kernel=16,
        pos_conv_groups=4,
    )  # fmt: skip
    model = masked_prediction.MaskedPrediction(
        SpeechEncoder(config), 8, masked_prediction.Spectrum(torch.randn(3, 8000)),
        spectrum_layer=1, mixing=0.0, mask_probability=0.3, learning_rate=1e-2,
    )  # fmt: skip
    waveforms = torch.randn(2, 400 + 320 * 19)
    micro = Micro(["a", "b"], waveforms, torch.full((2,), waveforms.shape[1]),
                  torch.randint(0, 8, (2, 20)))  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        torch.manual_seed(1)
        loss = model.losses(micro, 0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_spectrum_and_two_rounds_make_a_teacher_and_a_second_call_gives_the_same(
    tmp_path: Path,
) -> None:
    manifest = tmp_path / "beeps.csv"
    prepare.run(
        "beeps",
        Corpus(kind="synthetic", speakers=3, sentences=8),
        manifest,
        tmp_path / "beeps.flac",
    )
    training = Training(
        steps=3, warmup=1, learning_rate=1e-3, batch_seconds=4.0, micro_seconds=4.0,
        log_every=1, validate_every=2,
    )  # fmt: skip
    job = PretrainingJob(
        unlabelled=Unlabelled(corpora=("beeps",), min_seconds=0.3),
        pretraining=Pretraining(
            family="wavlm", blocks=3, width=32, heads=2, ffn=64, bands=4, levels=2,
            clusters=(5, 6), layer=2, spectrum_layer=1, mixing=0.5,
            spectrum=training, rounds=(training, training),
        ),
    )  # fmt: skip
    for name in ("a", "b"):
        output = tmp_path / f"{name}.safetensors"
        pretraining.run("t", job, [manifest], output, tmp_path / f"scratch-{name}")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    encoder = load_encoder(tmp_path / "a.safetensors")
    assert encoder.config.num_blocks == 3
    provenance = read_header(tmp_path / "a.safetensors")["provenance"]
    assert provenance["command"] == "python -m skill pretrain t"
    assert provenance["validation"]["validation_loss"] > 0
    with pytest.raises(ValueError, match="no state 9"):
        pseudo_labels.layer_features(encoder, np.zeros(4000, dtype=np.float32), 9)
