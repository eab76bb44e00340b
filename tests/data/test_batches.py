"""Batches: everything once an epoch, never too much, and a pure function of seed and step."""

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skill.data.batches import Batches, BatchPlan, collate
from skill.data.loader import Loader, first_batches
from skill.data.manifest import RATE, Utterance
from skill.utils.errors import SkillError


def utterances_of(lengths: list[int], path: str = "none.flac") -> list[Utterance]:
    starts = np.cumsum([0, *lengths]).tolist()
    return [
        Utterance(f"u{i}", "c", path, start, samples)
        for i, (start, samples) in enumerate(zip(starts, lengths, strict=False))
    ]


LENGTHS = st.lists(st.integers(1, 250_000), min_size=1, max_size=60)


@settings(deadline=None, max_examples=60)
@given(
    LENGTHS,
    st.floats(16.0, 60.0),
    st.integers(0, 2**31),
    st.sampled_from([None, "shortest"]),
    st.booleans(),
    st.sampled_from([None, 16.0]),
)
def test_every_epoch_has_each_utterance_once_in_bounded_batches(
    lengths, seconds, seed, crop, fixed, micro
):
    batches = Batches(utterances_of(lengths), seconds, seed, crop, fixed, micro)
    for epoch in range(3):
        steps = range(epoch * len(batches), (epoch + 1) * len(batches))
        seen = [
            (step, u.id, u.samples)
            for step in steps
            for micro_batch in batches.at(step)
            for u in micro_batch.utterances
        ]
        assert Counter(name for _, name, _ in seen) == Counter(f"u{i}" for i in range(len(lengths)))
        held: Counter[int] = Counter()
        for step, _, samples in seen:
            held[step] += samples
        assert max(held.values()) <= seconds * RATE + 1
        for step in steps:
            for part in batches.at(step):
                assert sum(u.samples for u in part.utterances) <= (micro or seconds) * RATE + 1
                for start, length, u in zip(
                    part.starts, part.lengths(), part.utterances, strict=True
                ):
                    assert start >= 0 and length > 0 and start + length <= u.samples
                if crop:
                    assert part.samples == min(u.samples for u in part.utterances)


@settings(deadline=None, max_examples=30)
@given(LENGTHS, st.integers(0, 1000), st.lists(st.integers(0, 500), min_size=1, max_size=8))
def test_a_step_does_not_depend_on_the_steps_before_it(lengths, seed, steps):
    utterances = utterances_of(lengths)
    asked = Batches(utterances, 20, seed)
    answers = [asked.at(step) for step in steps]
    for step, answer in zip(steps, answers, strict=True):
        assert Batches(utterances, 20, seed).at(step) == answer


def test_epochs_and_seeds_differ_and_crops_are_drawn():
    utterances = utterances_of(list(range(20_000, 120_000, 500)))
    batches, other = Batches(utterances, 30, 1), Batches(utterances, 30, 2)
    n = len(batches)
    first = [batches.at(step) for step in range(n)]
    assert [batches.at(step + n) for step in range(n)] != first
    assert [other.at(step) for step in range(n)] != first
    starts = [start for step in first for part in step for start in part.starts]
    assert 0 < np.mean(np.array(starts) > 0) < 1


def test_like_lengths_share_a_batch():
    lengths = np.random.default_rng(0).integers(32_000, 250_000, 4000).tolist()
    batches = Batches(utterances_of(lengths), 160, 0)
    cropped = total = 0
    for step in range(len(batches)):
        for part in batches.at(step):
            total += sum(u.samples for u in part.utterances)
            cropped += sum(part.lengths())
    assert cropped / total > 0.98
    assert total / (160 * RATE * len(batches)) > 0.9


def test_the_order_is_the_one_that_was_recorded():
    batches = Batches(utterances_of([16_000, 48_000, 32_000, 64_000, 24_000]), 5, seed=2022)
    found = [[u.id for part in batches.at(step) for u in part.utterances] for step in range(4)]
    assert found == [["u0", "u4", "u2"], ["u1"], ["u3"], ["u1"]]


def test_fixed_order_repeats_the_first_epoch():
    utterances = utterances_of(np.random.default_rng(1).integers(4_000, 90_000, 60).tolist())
    fixed, shuffled = (
        Batches(utterances, 20, 3, None, fixed_order=order) for order in (True, False)
    )
    epoch = len(fixed)
    assert epoch == len(shuffled) > 5
    for step in range(epoch):
        assert (
            fixed.at(step)
            == shuffled.at(step)
            == fixed.at(epoch + step)
            == fixed.at(7 * epoch + step)
        )
    assert any(shuffled.at(step) != shuffled.at(epoch + step) for step in range(epoch))


def test_impossible_batches_are_errors():
    with pytest.raises(SkillError, match="no utterances"):
        Batches([], 10, 0)
    with pytest.raises(SkillError, match="u1"):
        Batches(utterances_of([5, 200_000]), 10, 0, crop=None)


@pytest.fixture
def corpus(tmp_path: Path) -> list[Utterance]:
    lengths = np.random.default_rng(0).integers(4_000, 20_000, 120).tolist()
    samples = np.arange(sum(lengths), dtype=np.int64) % 30_000
    path = tmp_path / "all.flac"
    soundfile.write(path, samples.astype(np.int16), RATE, "PCM_16")
    return utterances_of(lengths, str(path))


def test_collate_pads_or_crops_the_right_samples(corpus: list[Utterance]):
    whole = collate(BatchPlan(tuple(corpus[:3]), (0, 0, 0), None))
    waveforms, lengths = whole.waveforms, whole.lengths
    assert waveforms.dtype == torch.float32
    assert lengths.tolist() == [u.samples for u in corpus[:3]]
    for row, u in zip(waveforms, corpus, strict=False):
        wanted = (np.arange(u.start, u.start + u.samples) % 30_000) / 32_768
        assert np.array_equal(row[: u.samples].numpy(), wanted.astype(np.float32))
        assert not row[u.samples :].any()
    cropped = collate(BatchPlan(tuple(corpus[:2]), (7, 11), 100)).waveforms
    assert cropped.shape == (2, 100)
    assert cropped[1, 0] == pytest.approx(((corpus[1].start + 11) % 30_000) / 32_768)


@pytest.mark.parametrize("workers", [0, 3])
def test_the_loader_gives_what_the_batches_say(corpus: list[Utterance], workers: int):
    batches = Batches(corpus, 5, 3)
    with Loader(batches, first_step=4, workers=workers) as loader:
        for step, loaded in islice(loader, 30):
            assert [part.plan for part in loaded] == batches.at(step)
            for part in loaded:
                assert torch.equal(part.waveforms, collate(part.plan).waveforms)


def test_the_loader_leaves_out_what_cannot_be_read_once(corpus, tmp_path, capsys):
    broken = tmp_path / "broken.flac"
    broken.write_bytes(b"no audio")
    many = [*corpus, Utterance("bad", "c", str(broken), 0, 9000)]
    batches = Batches(many, 5, 3)
    with Loader(batches, workers=2) as loader:
        names = Counter(
            u.id
            for _, loaded in islice(loader, 2 * len(batches))
            for part in loaded
            for u in part.plan.utterances
        )
    assert set(names) == {u.id for u in corpus}
    assert capsys.readouterr().err.count("left out") == 1
    found = first_batches(batches, 10 * len(batches))
    assert {u.id for part in found for u in part.plan.utterances} == set(names)
    worse = [*many, Utterance("bad2", "c", str(tmp_path / "missing.flac"), 0, 9000)]
    batches = Batches(worse, 5, 3)
    with pytest.raises(SkillError, match="2 of 122"), Loader(batches, workers=1) as loader:
        for _ in islice(loader, len(batches)):
            pass
