"""Training of heads: resuming, learning rates side by side, learning."""

import numpy as np
import pytest
import torch
from tone_corpus import spoken

from skill.config.tasks import make_task
from skill.superb import train_heads, vocabulary
from skill.superb.downstream import Transcription
from skill.superb.examples import Example, Fold
from skill.superb.feature_cache import FeatureCache
from skill.superb.upstream import Fbank
from skill.utils.errors import SkillError


def small_task(name, **settings):
    basic = {"steps": 30, "eval_every": 10, "learning_rates": [1e-2, 1e-3], "batch": 8}
    return make_task(name, {**basic, "accumulate": 1, **settings})


def same(first, second):
    assert [c.best for c in first] == [c.best for c in second]
    for a, b in zip(first, second, strict=True):
        for name, tensor in a.head.state_dict().items():
            assert torch.equal(tensor, b.head.state_dict()[name])
        for name, tensor in a.best_head.items():
            assert torch.equal(tensor, b.best_head[name])


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("name", ["pr", "asr"])
def test_stopped_and_resumed_training_ends_with_the_same_bits(tmp_path, monkeypatch, name):
    settings = {"hidden": 16, "recurrent": 8, "recurrent_layers": 1} if name == "asr" else {}
    task = small_task(name, accumulate=2, **settings)
    made = spoken(20)
    if name == "asr":
        made = [
            Example(
                e.id, e.samples, vocabulary.letters_of("".join(p[0] for p in e.target)), 0, e.read
            )
            for e in made
        ]
    downstream = Transcription(task, Fold([], made[14:], []))
    features = FeatureCache(Fbank(), pooled=False)
    train = made[:14]
    whole = train_heads.fit(downstream, features, task, train, seed=3)

    real = train_heads._step

    def stopping(*arguments):
        if arguments[-1] == 27:
            raise Interrupted
        return real(*arguments)

    monkeypatch.setattr(train_heads, "_step", stopping)
    scratch = tmp_path / "fold0"
    with pytest.raises(Interrupted):
        train_heads.fit(downstream, features, task, train, 3, scratch, "run")
    steps = []
    monkeypatch.setattr(train_heads, "_step", lambda *a: steps.append(a[-1]) or real(*a))
    same(train_heads.fit(downstream, features, task, train, 3, scratch, "run"), whole)
    assert steps[0] == 21
    steps.clear()
    train_heads.fit(downstream, features, task, train, 3, scratch, "another upstream")
    assert steps[0] == 1
    (scratch / "newest.pt").write_bytes(b"half a file")
    same(train_heads.fit(downstream, features, task, train, 3, scratch, "run"), whole)


def test_a_learning_rate_does_not_depend_on_its_neighbours():
    made = spoken(16)
    features = FeatureCache(Fbank(), pooled=False)
    both, one = small_task("pr"), small_task("pr", learning_rates=[1e-3])
    downstream = Transcription(both, Fold([], made[10:], []))
    together = train_heads.fit(downstream, features, both, made[:10], seed=0)
    alone = train_heads.fit(downstream, features, one, made[:10], seed=0)
    same(together[1:], alone)


@pytest.mark.parametrize("order", ["shuffled", "buckets"])
def test_seeds_side_by_side_are_those_of_separate_trainings(order):
    """Bit for bit, each with first weights and batches of its own."""
    made = spoken(16)
    several, one = (small_task("pr", order=order, head_seeds=count) for count in (2, 1))
    downstream = Transcription(several, Fold([], made[10:], []))
    features = FeatureCache(Fbank(), pooled=False)
    together = train_heads.fit(downstream, features, several, made[:10], seed=7)
    assert features.audio_seconds == sum(e.samples for e in made) / 16000  # heard once
    seeds = train_heads.head_seeds(several, 7)
    assert seeds[0] == 7 and [c.seed for c in together] == [s for s in seeds for _ in range(2)]
    for number, seed in enumerate(seeds):
        alone = train_heads.fit(downstream, features, one, made[:10], seed=seed)
        same(together[2 * number : 2 * number + 2], alone)
    first, second = (c.head.state_dict()["projector.weight"] for c in together[::2])
    assert not torch.equal(first, second)


def test_tones_are_transcribed():
    made = spoken(60)
    task = small_task("pr", steps=250, eval_every=50, learning_rates=[1e-2])
    downstream = Transcription(task, Fold([], made[40:50], []))
    features = FeatureCache(Fbank(), pooled=False)
    candidate = train_heads.fit(downstream, features, task, made[:40], seed=0)[0]
    answers = train_heads.answer(downstream, [candidate.head], features, made[50:])[0]
    assert 100 * downstream.counts(made[50:], answers)["per"].value() < 10


def test_all_rates_failing_is_an_error():
    def silent():
        return np.full(4000, np.nan, dtype=np.float32)

    broken = [Example(f"n{i}", 4000, ["B"], 0, silent) for i in range(3)]
    task = small_task("pr")
    with pytest.raises(SkillError, match="n0: the upstream's states are not finite"):
        downstream = Transcription(task, Fold([], broken, []))
        train_heads.fit(downstream, FeatureCache(Fbank(), False), task, broken, seed=0)
