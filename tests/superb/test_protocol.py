"""The traps of the SUPERB protocol that no other test of the tasks shows, each by its behaviour.

Elsewhere: weighted sum, parameters, halved batches, caching, padding (test_superb_heads); KS, SF,
ER, ASV and QUESST rules (test_superb_official); stress, slots, MTWV (test_superb_metrics); chunks
of recordings (test_superb_kinds); both protocols of a whole run (test_superb_run).
"""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from skill.config.load import load
from skill.config.tasks import PROTOCOL, has_protocol_values, make_task, official
from skill.superb import diarization, query_by_example, train_heads
from skill.superb.counts import Ratio
from skill.superb.downstream import Classification, Transcription
from skill.superb.examples import Example, Fold, Search
from skill.superb.feature_cache import FeatureCache
from skill.superb.upstream import Fbank
from skill.utils.errors import SkillError
from skill.utils.files import read_csv

ROOT = Path(__file__).parents[2]
# s3prl's downstream/*/config.yaml: hidden, LSTM (units, layers), batch × accumulation, steps,
# evaluated every, clip, SpecAugment, chosen by, reported
PROTOCOL_TABLE = {
    "pr": (256, (0, 0), (16, 2), 100_000, 1_000, 1, False, "per", ("per",)),
    "asr": (1024, (1024, 2), (32, 1), 200_000, 2_000, 1, True, "wer", ("wer", "cer")),
    "ks": (256, (0, 0), (32, 1), 200_000, 5_000, 1, False, "accuracy", ("accuracy",)),
    "qbe": (256, (0, 0), (32, 1), 0, 0, 1, False, "mtwv", ("mtwv",)),
    "sid": (256, (0, 0), (8, 4), 200_000, 5_000, 1, False, "accuracy", ("accuracy",)),
    "asv": (512, (0, 0), (10, 5), 200_000, 10_000, 1e3, False, "eer", ("eer",)),
    "sd": (256, (512, 1), (8, 4), 30_000, 500, 1, False, "frame_accuracy", ("der",)),
    "ic": (256, (0, 0), (32, 1), 200_000, 5_000, 1, False, "accuracy", ("accuracy",)),
    "sf": (1024, (1024, 2), (32, 1), 200_000, 2_000, 1, True, "slot_f1", ("slot_f1", "slot_cer")),
    "er": (256, (0, 0), (4, 8), 30_000, 1_000, 1, False, "accuracy", ("accuracy",)),
}


@pytest.mark.parametrize("name", PROTOCOL_TABLE)
def test_the_protocol_is_the_leaderboards(name):
    task = PROTOCOL[name]
    assert PROTOCOL_TABLE[name] == (
        task.hidden, (task.recurrent, task.recurrent_layers), (task.batch, task.accumulate),
        task.steps, task.eval_every, task.clip, task.spec_augment, task.selection, task.metrics,
    )  # fmt: skip
    questionable = name in ("asv", "sd")
    assert task.protocol == ("superb" if questionable else "clean")
    assert task.weight_decay == (0.01 if name == "asv" else 0)
    assert task.dropout == (0.2 if name in ("asr", "sf") else 0)


def test_the_study_runs_all_ten_tasks():
    params = load(ROOT / "presets" / "study.yaml")
    tasks = {name: make_task(name, settings) for name, settings in params.superb.tasks.items()}
    assert set(tasks) >= set(PROTOCOL_TABLE)
    kinds = {name: {params.corpora[c].kind for c in task.corpora} for name, task in tasks.items()}
    made = {"spoken_commands", "spoken_requests", "spoken_moods"}
    assert {name for name, own in kinds.items() if own & made} == {"ic", "sf", "er"}
    assert not made & {params.corpora[name].kind for name in params.unlabelled.corpora}
    listed = {row["kind"]: row for row in read_csv(ROOT / "data" / "corpora.csv")}
    assert all("marked synthetic" in listed[kind]["use"] for kind in made)


def noise(count, classes=3):
    """Examples of coloured noise, one colour a class."""
    generator = np.random.default_rng(0)
    made = []
    for number in range(count):
        samples = generator.normal(0, 0.1, 1600 * (3 + number % 4))
        samples = np.convolve(samples, np.ones(1 + 3 * (number % classes)), "same")
        samples = samples.astype(np.float32)
        made.append(Example(f"n{number}", len(samples), (number % classes,), f"s{number % 2}",
                            partial(np.copy, samples)))  # fmt: skip
    return made


def labels(examples, **settings):
    basic = {"steps": 6, "eval_every": 3, "learning_rates": [1e-3], "batch": 8, "accumulate": 1}
    task = make_task("sid", {**basic, **settings})
    return task, Classification(task, Fold(examples, examples, examples, labels=(("a", "b", "c"),)))


def counted(features):
    """How many micro-batches are asked for."""
    asked, real = [], features.batch
    features.batch = lambda examples: asked.append(len(examples)) or real(examples)
    return asked


def test_a_step_is_an_update_whatever_its_micro_batches(monkeypatch):
    made = noise(16)
    heads = []
    for batch, accumulate in ((8, 1), (2, 4)):
        task, downstream = labels(made, batch=batch, accumulate=accumulate)
        features = FeatureCache(Fbank(), pooled=True)
        candidate = train_heads._candidate(downstream, features, task, 1e-2, 0)
        parts = [made[n : n + batch] for n in range(0, 8, batch)]
        train_heads._step(downstream, features, task, [candidate], parts, 0, 1)
        heads.append(candidate.head.state_dict())
    for name, tensor in heads[0].items():
        torch.testing.assert_close(heads[1][name], tensor, atol=1e-5, rtol=1e-4)
    task, downstream = labels(made, batch=2, accumulate=4)
    features = FeatureCache(Fbank(), pooled=True)
    monkeypatch.setattr(train_heads, "_evaluate", lambda *a: None)
    monkeypatch.setattr(train_heads.math, "isnan", lambda x: False)  # nothing was evaluated
    asked = counted(features)
    train_heads.fit(downstream, features, task, made, 0)
    assert asked == [2] * 4 * task.steps


def test_no_schedule_and_the_protocols_optimisers():
    made = noise(12)
    task, downstream = labels(made, learning_rates=[3e-3, 1e-4])
    found = train_heads.fit(downstream, FeatureCache(Fbank(), pooled=True), task, made, 0)
    for candidate, rate in zip(found, (3e-3, 1e-4), strict=True):
        (group,) = candidate.optimizer.param_groups
        assert group["lr"] == candidate.learning_rate == rate and group["betas"] == (0.9, 0.999)
        assert type(candidate.optimizer) is torch.optim.Adam and group["weight_decay"] == 0
        assert any("featurizer" in name for name in candidate.best_head)
    task = task.model_copy(update={"weight_decay": 0.01})
    decayed = train_heads._candidate(downstream, FeatureCache(Fbank(), pooled=True), task, 1e-4, 0)
    assert type(decayed.optimizer) is torch.optim.AdamW


def test_one_pass_over_the_audio_serves_all_rates():
    made = noise(12)
    heard = []
    for rates in ([1e-3], [1e-1, 1e-2, 1e-3, 1e-4]):
        task, downstream = labels(made, learning_rates=rates)
        for room in (0, 1e9):
            features = FeatureCache(Fbank(), pooled=True, cache_bytes=room)
            train_heads.fit(downstream, features, task, made, 0)
            heard.append(features.audio_seconds)
    assert heard[:2] == heard[2:] and heard[1] == sum(e.samples for e in made) / 16000 < heard[0]


def test_training_on_cached_means_is_training_on_all_frames():
    made = noise(24)
    task, downstream = labels(made, steps=12, learning_rates=[1e-3, 1e-4])
    means, frames = (
        train_heads.fit(downstream, FeatureCache(Fbank(), pooled, cache_bytes=0), task, made, 0)
        for pooled in (True, False)
    )
    for one, other in zip(means, frames, strict=True):
        assert [row["accuracy"] for row in one.curve] == [row["accuracy"] for row in other.curve]
        for name, tensor in one.head.state_dict().items():
            moved = other.head.state_dict()[name]
            torch.testing.assert_close(moved, tensor, atol=one.learning_rate / 10, rtol=1e-3)


@pytest.mark.parametrize(("name", "counts", "best"), [
    ("asr", {"wer": Ratio(np.array([3.0]), np.array([2.0]))}, 150),
    ("sf", {"slot_f1": Ratio(np.array([0.0]), np.array([1.0]))}, 0),
])  # fmt: skip
def test_the_worst_result_still_leaves_a_head(monkeypatch, name, counts, best):
    small = {"hidden": 8, "recurrent": 0, "recurrent_layers": 0, "steps": 2, "eval_every": 1,
             "learning_rates": [1e-3], "batch": 4}  # fmt: skip
    made = [Example(e.id, e.samples, ["A"], e.cluster, e.read) for e in noise(6)]
    task = make_task(name, small)
    downstream = Transcription(task, Fold([], made, [], labels=(("B-x", "E-x"),)))
    monkeypatch.setattr(downstream, "counts", lambda *a: counts)
    (found,) = train_heads.fit(downstream, FeatureCache(Fbank(), pooled=False), task, made, 0)
    assert found.best == best and found.best_step == 1 and found.best_head


@pytest.mark.parametrize(("protocol", "reported"), [("superb", 10), ("clean", 30)])
def test_diarization_chooses_its_setting_where_the_protocol_says(protocol, reported):
    task = make_task("sd", {"protocol": protocol})
    downstream = diarization.Diarization(task, Fold([], [], []), 320)

    def counts(**errors):
        return {name: Ratio(np.array([float(e)]), np.array([100.0])) for name, e in errors.items()}

    dev = counts(frame_accuracy=50, der_median1_threshold5=20, der_median11_threshold3=40)
    test = counts(frame_accuracy=50, der_median1_threshold5=30, der_median11_threshold3=10)
    final = {
        name: float(top[0]) for name, (top, _) in downstream.choose_reported(dev, test).items()
    }
    assert final == {"der": reported, "der_clean": 30, "der_superb": 10}


def test_search_reports_the_state_that_dev_chose(monkeypatch):
    upstream = Fbank()
    upstream.states = 3
    words = [Example(f"q{n}", 4000, f"w{n}", f"v{n % 2}", lambda: None) for n in range(4)]
    documents = [Example(f"d{n}", 8000, (f"w{n}",), "v9", lambda: None) for n in range(4)]
    search = Search(documents, {"dev": words, "test": words})
    good, bad = np.eye(4) * 3, -np.eye(4) * 3

    def scores(features, states, queries, documents):
        # on dev the second state is best, on test it is the worst
        return np.stack([good if state == 1 else bad for state in states] if len(states) > 1
                        else [bad])  # fmt: skip

    monkeypatch.setattr(query_by_example, "scores", scores)
    monkeypatch.setattr(FeatureCache, "prepare", lambda *a: None)
    outcome = query_by_example.evaluate(upstream, make_task("qbe", {"bootstrap": 20}), search, 0)
    assert outcome.result["layer"] == 1 and [s["dev"] for s in outcome.result["sweep"]][1] == 1
    assert outcome.result["metrics"]["mtwv"]["value"] == 0
    assert outcome.result["metrics"]["mtwv"]["clusters"] == 2


def test_only_the_whole_protocol_stands_beside_published_results():
    assert official(make_task("asr", {"learning_rates": [1e-3], "precision": "bf16"}))
    for settings in ({"steps": 4000}, {"test_seconds": 600.0}, {"selection": "cer"}, {"batch": 4}):
        assert not official(make_task("asr", settings))
    assert not official(make_task("asr", {"corpora": ["queen"]}))
    assert has_protocol_values(make_task("qbe", {})) and not official(make_task("qbe", {}))
    assert not has_protocol_values(make_task("qbe", {"table": "english"}))
    assert official(make_task("sid", {"crops": 0})) and not official(make_task("sid", {"crops": 1}))


def test_the_metric_that_chooses_is_one_of_the_tasks():
    assert make_task("asr", {"selection": "cer"}).selection == "cer"
    with pytest.raises(SkillError, match=r"superb\.tasks\.asr\.selection: one of cer, wer"):
        make_task("asr", {"selection": "per"})
