"""Features, heads and their training: exact shortcuts, parameter counts, resuming, learning."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch

from skill.config.tasks import PROTOCOL, configured
from skill.data import fbank
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.superb import heads, train_heads, vocabulary
from skill.superb.downstream import Labels, Transcription, value
from skill.superb.examples import Example, Fold, batch_order, cropped, group_folds, limited
from skill.superb.upstream import Encoder, Fbank, Features
from skill.utils.errors import SkillError


def tones(pitches, seconds=0.08):
    """Samples of a row of pure tones, one per symbol."""
    time = np.arange(int(16000 * seconds)) / 16000
    parts = [np.sin(2 * np.pi * hertz * time) * np.hanning(len(time)) for hertz in pitches]
    return (0.5 * np.concatenate(parts)).astype(np.float32)


def tone_example(number, target, pitches):
    samples = tones(pitches)
    return Example(f"u{number}", len(samples), target, number % 3, partial(np.copy, samples))


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    config = EncoderConfig.uniform("wavlm", width=16, blocks=2, heads=2, ffn=32, conv=16)
    return Encoder(SpeechEncoder(config))


def spoken(count, seed=0):
    """Utterances of tones: the transcript says which tones; speakers differ in a fifth."""
    generator = np.random.default_rng(seed)
    names = ("AA0", "B", "IY1", "K")
    made = []
    for number in range(count):
        symbols = generator.integers(0, 4, generator.integers(3, 8))
        pitches = 300 * 2.0**symbols
        made.append(tone_example(number, [names[s] for s in symbols], pitches))
    return made


def test_fbank_equals_torchaudio():
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi")
    transforms = pytest.importorskip("torchaudio.transforms")
    waveform = torch.randn(12345, generator=torch.Generator().manual_seed(0)) * 0.1
    expected = kaldi.fbank(waveform[None], num_mel_bins=80, sample_frequency=16000)
    torch.testing.assert_close(fbank.log_mel(waveform), expected, atol=2e-3, rtol=1e-4)
    delta = transforms.ComputeDeltas(win_length=5)
    torch.testing.assert_close(fbank.differences(expected), delta(expected.T[None])[0].T)
    assert fbank.fbank(waveform).shape == (fbank.frames(12345), 240)


def test_fbank_refuses_less_than_a_window():
    with pytest.raises(ValueError, match="399"):
        fbank.log_mel(torch.zeros(399))


def test_vocabularies_have_superbs_ids():
    phones, letters = vocabulary.phone_vocabulary(), vocabulary.letter_vocabulary()
    assert (len(phones), len(letters)) == (74, 32)
    assert len(vocabulary.PHONES) == len(set(vocabulary.PHONES)) == 71
    assert phones.symbols[3:6] == ("SIL", "SPN", "AA0") and phones.symbols[-1] == "ZH"
    assert letters.encode(vocabulary.spelled("it is")) == [10, 6, 4, 10, 12, 4, 2]


def test_greedy_decoding_merges_then_drops_blanks():
    phones = vocabulary.phone_vocabulary()
    b, k = phones.ids["B"], phones.ids["K"]
    assert phones.decode([0, b, b, 0, b, k, k, 1, 0]) == ["B", "B", "K"]
    assert phones.decode([0, 0]) == []
    assert vocabulary.words_of(list("|IT||IS|")) == ["IT", "IS"]


def test_first_pronunciation_with_stress_digits(tmp_path):
    lexicon = vocabulary.cmu_lexicon()
    amazon = ["DH", "AH0", "AE1", "M", "AH0", "Z", "AA2", "N"]
    assert vocabulary.pronounced("THE AMAZON", lexicon) == amazon
    assert vocabulary.pronounced("THE XQZT", lexicon) is None
    assert all(p in vocabulary.PHONES for phones in lexicon.values() for p in phones)
    (tmp_path / "lexicon.txt").write_text("A AH0\nA EY1\n\nBAD\n")
    with pytest.raises(SkillError, match=r"lexicon\.txt:4: 'BAD'"):
        vocabulary.read_lexicon([tmp_path / "lexicon.txt"])


@pytest.mark.parametrize(
    ("name", "outputs", "parameters"),
    [
        ("pr", 74, 196_864 + 19_018),
        ("asr", 32, 787_456 + 16_793_600 + 25_182_208 + 65_568),
        ("ks", 12, 196_864 + 257 * 12),
        ("sid", 1251, 196_864 + 257 * 1251),
        ("ic", 24, 196_864 + 257 * 24),
    ],
)
def test_parameter_counts_of_the_protocol(name, outputs, parameters):
    task = PROTOCOL[name]
    if task.kind == "ctc":
        head = Transcription(task, Fold([], [], [])).build(13, 768)
    else:
        fold = Fold([], [], [], labels=(tuple(map(str, range(outputs))),))
        head = Labels(task, fold).build(13, 768)
    assert sum(p.numel() for p in head.parameters()) == parameters + 13


def test_weighted_sum_starts_as_the_mean_and_does_not_normalise():
    states = torch.randn(5, 2, 7, 3) * 10
    layer = heads.WeightedSum(5)
    torch.testing.assert_close(layer(states), states.mean(0))
    layer.weights.data[2] = 50.0
    torch.testing.assert_close(layer(states), states[2])


def test_time_means_give_the_same_logits_as_all_frames(encoder):
    examples = spoken(6)
    torch.manual_seed(1)
    head = heads.MeanHead(encoder.states, encoder.width, 256, 12)
    head.featurizer.weights.data.normal_()
    means, ones = Features(encoder, pooled=True).batch(examples)
    whole, lengths = Features(encoder, pooled=False).batch(examples)
    assert means.shape == (3, 6, 16) and len(set(lengths.tolist())) > 1
    torch.testing.assert_close(head(means, ones), head(whole, lengths), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pooled", [True, False])
def test_cache_changes_neither_order_nor_states(encoder, pooled):
    examples = spoken(7)
    fresh = Features(encoder, pooled, cache_bytes=0)
    partly = Features(encoder, pooled, cache_bytes=900 if pooled else 8_000)
    partly.prepare(examples, "test")
    assert 0 < len(partly.kept) < 7
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
        Features(Fbank(), pooled=True).batch([short])


def small_task(name, **settings):
    basic = {"steps": 30, "eval_every": 10, "learning_rates": [1e-2, 1e-3], "batch": 8}
    return configured(name, {**basic, "accumulate": 1, **settings})


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
            Example(e.id, e.samples, vocabulary.spelled("".join(p[0] for p in e.target)), 0, e.read)
            for e in made
        ]
    problem = Transcription(task, Fold([], made[14:], []))
    features = Features(Fbank(), pooled=False)
    train = made[:14]
    whole = train_heads.fit(problem, features, task, train, seed=3)

    real = train_heads._step

    def stopping(*arguments):
        if arguments[-1] == 27:
            raise Interrupted
        return real(*arguments)

    monkeypatch.setattr(train_heads, "_step", stopping)
    checkpoint = tmp_path / "fold0.pt"
    with pytest.raises(Interrupted):
        train_heads.fit(problem, features, task, train, 3, checkpoint, "run")
    steps = []
    monkeypatch.setattr(train_heads, "_step", lambda *a: steps.append(a[-1]) or real(*a))
    same(train_heads.fit(problem, features, task, train, 3, checkpoint, "run"), whole)
    assert steps[0] == 21
    steps.clear()
    train_heads.fit(problem, features, task, train, 3, checkpoint, "another upstream")
    assert steps[0] == 1
    checkpoint.write_bytes(b"half a file")
    same(train_heads.fit(problem, features, task, train, 3, checkpoint, "run"), whole)


def test_a_learning_rate_does_not_depend_on_its_neighbours():
    made = spoken(16)
    features = Features(Fbank(), pooled=False)
    both, one = small_task("pr"), small_task("pr", learning_rates=[1e-3])
    problem = Transcription(both, Fold([], made[10:], []))
    together = train_heads.fit(problem, features, both, made[:10], seed=0)
    alone = train_heads.fit(problem, features, one, made[:10], seed=0)
    same(together[1:], alone)


def test_tones_are_transcribed():
    made = spoken(60)
    task = small_task("pr", steps=250, eval_every=50, learning_rates=[1e-2])
    problem = Transcription(task, Fold([], made[40:50], []))
    features = Features(Fbank(), pooled=False)
    candidate = train_heads.fit(problem, features, task, made[:40], seed=0)[0]
    answers = train_heads.answer(problem, [candidate.head], features, made[50:])[0]
    assert value("per", problem.counts(made[50:], answers)["per"]) < 10


def test_all_rates_failing_is_an_error():
    def silent():
        return np.full(4000, np.nan, dtype=np.float32)

    broken = [Example(f"n{i}", 4000, ["B"], 0, silent) for i in range(3)]
    task = small_task("pr")
    with pytest.raises(SkillError, match="n0: the upstream's states are not finite"):
        train_heads.fit(Transcription(task, Fold([], broken, [])), Features(Fbank(), False), task,
                    broken, seed=0)  # fmt: skip


def test_orders_are_pure_and_cover_what_they_should():
    examples = [
        Example(f"u{i}", 1000 * (i + 1), tuple([i % 3] * (i % 7 + 1)), 0, lambda: None)
        for i in range(33)
    ]
    for order in ("shuffled", "buckets", "windows", "balanced"):
        first = batch_order(order, examples, 8, epoch=2, seed=5)
        assert first == batch_order(order, examples, 8, epoch=2, seed=5)
        assert first != batch_order(order, examples, 8, epoch=3, seed=5)
    shuffled = batch_order("shuffled", examples, 8, 0, 0)
    assert sorted(i for batch in shuffled for i in batch) == list(range(33))
    buckets = batch_order("buckets", examples, 8, 0, 0)
    assert {len(batch) for batch in buckets} == {4}  # halves; the lone last one is dropped
    assert all(max(batch) - min(batch) == 3 for batch in buckets)
    for small in (1, 2):  # halves of one item are all there is
        ones = batch_order("buckets", examples, small, 0, 0)
        assert sorted(ones) == [[i] for i in range(33)]
    windows = batch_order("windows", examples, 8, 0, 0)
    assert len(windows) == 33 and {len(batch) for batch in windows} == {8}
    longer = [Example(e.id, 400_000, e.target, 0, e.read) for e in examples]
    assert {len(batch) for batch in batch_order("windows", longer, 8, 0, 0)} == {4}


def test_balanced_order_draws_every_class_as_often():
    examples = [Example(f"u{i}", 1, (int(i < 10),), 0, lambda: None) for i in range(1000)]
    drawn = [examples[i].target for batch in batch_order("balanced", examples, 32, 0, 0)
             for i in batch]  # fmt: skip
    assert len(drawn) == 992
    assert Counter(drawn)[(1,)] == pytest.approx(496, abs=80)


def test_limits_folds_and_crops_follow_hashes():
    examples = [Example(f"u{i}", 16000, 0, 0, lambda: np.arange(16000.0)) for i in range(50)]
    kept = limited(examples, seconds=10)
    assert len(kept) == 10 and kept == limited(reversed(examples), 10)[::-1]
    assert {e.id for e in limited(examples, 5)} <= {e.id for e in kept}
    groups = group_folds([f"voice{i}" for i in range(15)], 5)
    assert [len(group) for group in groups] == [3] * 5 and len(set.union(*groups)) == 15
    parts = cropped(examples[0], seconds=0.25, crops=3)
    assert [len(part.read()) for part in parts] == [4000] * 3
    assert len({part.read()[0] for part in parts}) > 1
    assert cropped(examples[0], seconds=2, crops=3) == [examples[0]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stepz": 3}, "superb.tasks.pr.stepz"),
        ({"steps": "many"}, "superb.tasks.pr.steps"),
        ({"batch": 0}, "superb.tasks.pr.batch"),
        ({"kind": "labels"}, "superb.tasks.pr.kind"),
        ({"steps": 10}, "allow no training"),
        ({"learning_rates": []}, "allow no training"),
        ({"learning_rates": [1e-2, -1.0]}, "superb.tasks.pr.learning_rates.1"),
        ({"steps": "3000"}, "superb.tasks.pr.steps"),
        ({"spec_augment": 1}, "superb.tasks.pr.spec_augment"),
        ({"corpora": []}, "superb.tasks.pr.corpora"),
        ({"folds": 2}, "superb.tasks.pr.folds: 2, but pr has 1"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(SkillError, match=message):
        configured("pr", settings)


@pytest.mark.parametrize(("task", "folds"), [("sid", 3), ("ks", 2), ("er", 6)])
def test_a_task_has_its_own_range_of_folds(task, folds):
    with pytest.raises(SkillError, match=f"{task}.folds: {folds}, but {task} has . to"):
        configured(task, {"folds": folds})


def test_spec_augment_masks_and_keeps_lengths():
    torch.manual_seed(0)
    x = torch.ones(3, 120, 80)
    lengths = torch.tensor([120, 90, 30])
    out = heads.spec_augment(x, lengths)
    assert out.shape == x.shape
    assert (out[1, 90:] == 0).all() and (out[2, 30:] == 0).all()
    assert set(out.round(decimals=2).unique().tolist()) == {0.0, 1.0}  # a warped constant is one
    assert 0 < (out[0] == 0).float().mean() < 0.95


def test_spec_augment_draws_two_stretches_of_time_and_four_of_channels():
    torch.manual_seed(0)
    drawn = heads.spec_augment(torch.ones(200, 400, 600), torch.full((200,), 400)) > 0.5
    for shown, masks, widest in ((drawn.any(dim=2), 2, 40), (drawn.any(dim=1), 4, 50)):
        edges = torch.diff(shown.int(), prepend=torch.ones(200, 1), append=torch.ones(200, 1))
        assert int((edges == -1).sum(dim=1).max()) == masks
        hidden = (~shown).sum(dim=1).float()
        assert hidden.max() <= masks * (widest - 1)
        assert float(hidden.mean()) == pytest.approx(masks * (widest - 1) / 2, rel=0.15)
