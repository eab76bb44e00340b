"""Pretraining: features, targets, masks, mixing, and a teacher in small."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skill.config.jobs import PretrainingJob
from skill.config.load import load
from skill.config.params import Corpus, Unlabelled
from skill.config.pretraining import (
    Pretraining,
    PretrainingRound,
    PretrainingStart,
    PretrainingTarget,
)
from skill.config.training import Training
from skill.config.types import parse
from skill.data.batches import Batch, BatchPlan
from skill.data.corpora import prepare
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.encoder.checkpoint import load_encoder
from skill.teachers import frame_features, masked_prediction, pretraining, whisper
from skill.teachers.frame_features import FrameValues
from skill.teachers.spectrum import Spectrum
from skill.utils.errors import SkillError
from skill.utils.files import read_csv, read_header, sha256

ROOT = Path(__file__).parents[2]


@given(st.integers(800, 20_000))
def test_mfcc_have_one_vector_per_frame_of_the_encoder(samples: int) -> None:
    waveform = np.random.default_rng(samples).normal(size=samples).astype(np.float32)
    with torch.device("meta"):
        config = EncoderConfig.uniform("hubert", width=64, blocks=1, heads=2, ffn=8, conv=4)
        frames = SpeechEncoder(config).frames(samples)
    found = frame_features.mfcc(waveform)
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


def test_noise_has_the_energy_that_was_drawn() -> None:
    torch.manual_seed(0)
    waveforms = torch.randn(20, 4000)
    noise = masked_prediction.add_noise(waveforms, probability=1.0) - waveforms
    ratio = 10 * torch.log10(waveforms.square().mean(1) / noise.square().mean(1))
    assert (ratio > 4.9).all() and (ratio < 20.1).all()
    assert torch.equal(masked_prediction.add_noise(waveforms, probability=0.0), waveforms)


@given(st.integers(0, 40), st.integers(0, 319), st.integers(0, 400))
def test_targets_are_those_nearest_to_the_frames_of_a_crop(
    frame: int, rest: int, centre: int
) -> None:
    values = FrameValues(np.arange(100), {"a": (0, 30), "u": (30, 100)}, centre)
    start = 320 * frame + rest
    segment = values.segment("u", start, 20)
    wanted = (start - centre) / 320 + np.arange(20)
    inside = (wanted >= 0) & (wanted <= 69)
    assert (abs(segment - 30 - wanted)[inside] <= 0.5).all()
    assert (segment[wanted < 0] == 30).all() and (segment[wanted > 69] == 99).all()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"features": "mfcc"}, "mfcc need clusters"),
        ({"features": "mfcc", "layer": 3, "clusters": 9}, "layer is needed with"),
        ({"features": "spectrum", "clusters": 9}, "the spectrum has no clusters"),
        ({"features": "model", "clusters": 9}, "layer is needed with"),
        ({"encoder": "whisper-tiny.en"}, "layer is needed with"),
        ({"encoder": "whisper-tiny.en", "features": "mfcc"}, "exactly one of"),
        ({"encoder": "whisper-tiny.en", "layer": 4, "centers": 9}, "centers: unknown key"),
    ],
)
def test_a_target_that_makes_no_sense_is_one_sentence(target: object, message: str) -> None:
    with pytest.raises(SkillError, match=message):
        parse(PretrainingTarget, target)


def test_a_target_of_a_block_that_is_not_there_is_named() -> None:
    section = {"family": "hubert", "blocks": 4, "rounds": [{"steps": 1, "warmup": 0,
               "learning_rate": 1e-3, "targets": [{"features": "spectrum", "at": 5}]}]}  # fmt: skip
    with pytest.raises(SkillError, match="round 1: at 5 of a model of 4 blocks"):
        parse(Pretraining, section)


def _in_todays_words(section: dict[str, Any]) -> Pretraining:
    """The parameters in a teacher's header; before targets were values, they were other keys."""
    if "clusters" in section:
        clusters, layer = section.pop("clusters"), section.pop("layer")
        spectrum = {"features": "spectrum", "at": section.pop("spectrum_layer")}
        for number, (stage, count) in enumerate(zip(section["rounds"], clusters, strict=True)):
            source = {"features": "model", "layer": layer} if number else {"features": "mfcc"}
            stage["targets"] = [source | {"clusters": count}, spectrum]
    return parse(Pretraining, section)


@pytest.mark.parametrize("name", ["wavlm-mfcc", "wavlm-sample", "hubert-sample"])
def test_the_stored_teachers_are_what_the_parameters_make(name: str) -> None:
    made = read_header(ROOT / f"data/teachers/{name}.safetensors")["provenance"]
    preset = load(ROOT / "presets/study.yaml")
    precision = {"precision"}  # which the machine decides
    exclude: Any = {"rounds": {"__all__": precision}, "spectrum": precision}
    stored = _in_todays_words(made["params"]["pretraining"])
    expected = preset.pretraining[name]
    assert stored.model_dump(exclude=exclude) == expected.model_dump(exclude=exclude)
    assert made["params"]["unlabelled"] == preset.unlabelled.model_dump(mode="json")
    assert made["validation"]["validation_loss"] > 0


def test_the_model_can_learn_a_small_batch_by_heart() -> None:
    torch.manual_seed(0)
    config = EncoderConfig.uniform(
        "hubert", width=32, blocks=2, heads=2, ffn=64, conv=16, pos_conv_kernel=16,
        pos_conv_groups=4,
    )  # fmt: skip
    several = (
        PretrainingTarget(features="mfcc", clusters=8),
        PretrainingTarget(encoder="some", layer=2, at=1),
        PretrainingTarget(features="spectrum", at=1),
    )
    model = masked_prediction.MaskedPrediction(
        SpeechEncoder(config), several, [0, 5, 40], Spectrum(torch.randn(3, 8000)),
        mixing=0.0, noise=0.0, mask_probability=0.3, learning_rate=1e-2,
    )  # fmt: skip
    waveforms = torch.randn(2, 400 + 320 * 19)
    wanted = [torch.randint(0, 8, (2, 20)), torch.randn(2, 20, 5), None]
    batch = Batch(BatchPlan((), (), None), waveforms, torch.full((2,), waveforms.shape[1]), wanted)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        torch.manual_seed(1)
        loss = model.losses(batch, 0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.fixture
def beeps(tmp_path: Path) -> Path:
    manifest = tmp_path / "beeps.csv"
    prepare.run(
        "beeps",
        Corpus(kind="synthetic", speakers=3, sentences=8),
        manifest,
        tmp_path / "beeps.flac",
    )
    return manifest


def _job(*rounds: tuple[PretrainingTarget, ...], **section: object) -> PretrainingJob:
    once = {
        "steps": 3, "warmup": 1, "learning_rate": 1e-3, "batch_seconds": 4.0,
        "micro_seconds": 4.0, "log_every": 1, "validate_every": 2,
    }  # fmt: skip
    return PretrainingJob(
        unlabelled=Unlabelled(corpora=("beeps",), min_seconds=0.3),
        pretraining=Pretraining(
            family="wavlm", blocks=3, width=32, heads=2, ffn=64, bands=4, levels=2,
            spectrum=Training(**once), rounds=tuple(PretrainingRound(**once, targets=t)
                                                    for t in rounds), **section,
        ),
    )  # fmt: skip


class TinyEncoder:
    """Stands for a real encoder, which a package of 70 MB brings: states of T + `more` frames."""

    def __init__(self, more: int) -> None:
        self.more = more

    def states(self, waveform: np.ndarray) -> list[torch.Tensor]:
        frames = len(waveform) // 320 + self.more
        values = torch.from_numpy(np.resize(waveform, (frames, 6)))
        return [values, values.cumsum(1)]


def test_several_targets_make_a_teacher_and_a_second_call_gives_the_same(
    tmp_path: Path, beeps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whisper, "load", lambda name: TinyEncoder(1))
    job = _job(
        (
            PretrainingTarget(features="mfcc", clusters=5),
            PretrainingTarget(encoder="tiny", layer=0, clusters=4, at=2),
            PretrainingTarget(encoder="tiny", layer=1, at=1),
        ),
        (
            PretrainingTarget(features="model", layer=2, clusters=6),
            PretrainingTarget(features="spectrum", at=1),
        ),
        mixing=0.5, noise=0.5, speeds=(0.9,), languages=("en",),
    )  # fmt: skip
    for name in ("a", "b"):
        output = tmp_path / f"{name}.safetensors"
        pretraining.run("t", job, [beeps], output, tmp_path / f"scratch-{name}")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    encoder = load_encoder(tmp_path / "a.safetensors")
    assert encoder.config.num_blocks == 3
    provenance = read_header(tmp_path / "a.safetensors")["provenance"]
    assert provenance["command"] == "python -m skill pretrain t"
    assert provenance["validation"]["validation_loss"] > 0
    curve = read_csv(tmp_path / "scratch-a/curve.csv")
    assert [row["stage"] for row in curve] == ["spectrum"] * 3 + ["round 1"] * 3 + ["round 2"] * 3
    assert float(curve[-1]["validation_loss"]) > 0


def test_a_round_can_be_added_to_a_finished_teacher(
    tmp_path: Path, beeps: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = (PretrainingTarget(features="mfcc", clusters=5),)
    second = (PretrainingTarget(features="model", layer=2, clusters=6),)
    output = tmp_path / "t.safetensors"
    pretraining.run("t", _job(first), [beeps], output, tmp_path / "scratch")
    capsys.readouterr()
    pretraining.run("t", _job(first, second), [beeps], output, tmp_path / "scratch")
    assert "round1/newest.pt: resumed at step 3" in capsys.readouterr().err
    pretraining.run("t", _job(first, second), [beeps], tmp_path / "n.safetensors", tmp_path / "n")
    assert output.read_bytes() == (tmp_path / "n.safetensors").read_bytes()


def test_a_teacher_can_start_from_another(tmp_path: Path, beeps: Path) -> None:
    target = (PretrainingTarget(features="spectrum", at=1),)
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    pretraining.run("t", _job(target), [beeps], first, tmp_path / "scratch")
    start = PretrainingStart(source=str(first), sha256=sha256(first))
    still = _job(target, start=start)
    rounds = (still.pretraining.rounds[0].model_copy(update={"learning_rate": 0.0}),)
    section = still.pretraining.model_copy(update={"rounds": rounds, "spectrum": None})
    still = still.model_copy(update={"pretraining": section})
    pretraining.run("t", still, [beeps], second, tmp_path / "n")
    weights, other = (load_encoder(path).state_dict() for path in (first, second))
    assert all(torch.equal(value, other[key]) for key, value in weights.items())

    def message(**changes: object) -> str:
        changed = still.model_copy(update={"pretraining": section.model_copy(update=changes)})
        with pytest.raises(SkillError) as error:
            pretraining.run("t", changed, [beeps], tmp_path / "o.safetensors", tmp_path / "o")
        return str(error.value)

    assert "another SHA-256" in message(start=start.model_copy(update={"sha256": "0" * 64}))
    assert "there is no file" in message(start=start.model_copy(update={"source": "gone"}))
    assert "another shape" in message(width=64)


def test_targets_shorter_than_the_audio_name_the_utterance(
    tmp_path: Path, beeps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whisper, "load", lambda name: TinyEncoder(-4))
    job = _job((PretrainingTarget(encoder="tiny", layer=0, clusters=4),))
    with pytest.raises(SkillError, match=r"utterance \S+: \d+ frames of targets for \d+ frames"):
        pretraining.run("t", job, [beeps], tmp_path / "t.safetensors", tmp_path / "scratch")
    assert not (tmp_path / "t.safetensors").exists()


def test_no_speech_of_a_language_is_one_sentence(tmp_path: Path, beeps: Path) -> None:
    job = _job((PretrainingTarget(features="mfcc", clusters=4),), languages=("tlh",))
    with pytest.raises(SkillError, match="no train utterance is in tlh"):
        pretraining.run("t", job, [beeps], tmp_path / "t.safetensors", tmp_path / "scratch")


def test_the_centre_of_a_frame_is_half_of_what_it_sees() -> None:
    with torch.device("meta"):
        config = EncoderConfig.uniform("hubert", width=64, blocks=1, heads=2, ffn=8, conv=4)
        assert config.receptive_field // 2 == 200
