"""The steps `superb` and `size` from files to files, on generated tones."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import tone_corpus
import torch
from tone_corpus import SETTINGS, evaluated

from skill.config.tasks import make_task
from skill.data.manifest import read_manifest
from skill.superb import evaluate, profile
from skill.superb.datasets import folds_of
from skill.superb.metrics import METRICS
from skill.utils.errors import SkillError
from skill.utils.files import read_header, read_json, read_tensors

corpus, encoder = tone_corpus.corpus, tone_corpus.encoder


def test_a_second_fold_of_speakers_swaps_development_and_test(corpus):
    settings = {"corpora": ["tones"], **SETTINGS["sid"]}
    utterances = read_manifest(corpus / "tones.csv")
    alone = folds_of(make_task("sid", {**settings, "folds": 1}), utterances)
    first, second = folds_of(make_task("sid", settings), utterances)
    assert alone == [first]
    assert (second.train, second.dev, second.test) == (first.train, first.test, first.dev)


@pytest.mark.parametrize("task", SETTINGS)
def test_every_sample_task_runs_from_files_to_files(corpus, tmp_path, task):
    result, rows = evaluated(corpus, tmp_path, task)
    assert result["task"] == task and result["upstream"] == "fbank"
    assert result["synthetic"] is True and result["official"] is False
    for name, metric in result["metrics"].items():
        assert metric["low"] <= metric["high"]
        if name != "mtwv":  # a maximum over thresholds: resampling can only favour it
            assert metric["low"] - 1e-6 <= metric["value"] <= metric["high"] + 1e-6
        assert metric["items"] == len(rows) > 0
        voices = {row["cluster"] for row in rows}  # whole voices are resampled, or pairs of them
        assert metric["clusters"] == len(voices) <= len(rows)
        assert all("voice" in voice for voice in voices)
        assert {name, f"{name}_of", "id", "cluster"} <= set(rows[0])
    for fold, rate in enumerate(result.get("learning_rates", ())):  # each by its own dev set
        dev = {row["learning_rate"]: row["dev"][fold] for row in result["sweep"]}
        low_is_good = METRICS[make_task(task, {}).selection].low_is_good
        assert dev[rate] == (min if low_is_good else max)(dev.values())
    ids = [row["id"] for row in rows]
    assert ids == sorted(ids) and len(set(ids)) == len(ids)
    header = read_header(tmp_path / f"{task}.safetensors")
    assert header["task"]["name"] == task
    assert not list((tmp_path / "scratch").rglob("*.pt"))
    if task == "sid":
        assert result["metrics"]["accuracy"]["value"] > 60
    if task == "ic":
        assert result["metrics"]["accuracy"]["value"] > 60
        assert result["examples"]["classes"] == [1, 4, 1]
    if task == "er":
        folds = [fold["accuracy"] for fold in result["folds"]]
        assert result["examples"]["test"] == [48, 48, 48, 24, 24]
        assert result["metrics"]["accuracy"]["value"] == pytest.approx(np.mean(folds))
    if task == "qbe":
        assert result["layer"] == 0 and len(rows) == result["metrics"]["mtwv"]["items"]


@pytest.mark.parametrize("task", ["sid", "er", "asv"])
def test_a_result_is_the_mean_over_seeds_of_heads(corpus, tmp_path, task):
    """Two folds, a mean over folds, and a metric that is no ratio."""
    settings = {"steps": 20, "eval_every": 10, "learning_rates": [1e-2, 1e-3]}
    one, rows = evaluated(corpus, tmp_path / "one", task, **settings)
    two, both = evaluated(corpus, tmp_path / "two", task, head_seeds=2, **settings)
    assert one["head_seeds"] == [1] and two["head_seeds"] == [1, 100_001]
    assert both[::2] == rows  # the first seed's heads are those of a task with one
    assert [row["head_seed"] for row in both[:2]] == ["1", "100001"]
    assert [row["id"] for row in both[::2]] == [row["id"] for row in both[1::2]]
    for name, metric in two["metrics"].items():
        assert len(metric["heads"]) == 2 and metric["items"] == len(rows)
        assert metric["heads"][0] == one["metrics"][name]["value"]
        assert metric["value"] == pytest.approx(np.mean(metric["heads"]), abs=1e-4)
    folds = len(one["learning_rates"])
    assert two["learning_rates"][:folds] == one["learning_rates"]
    assert [len(row["dev"]) for row in two["sweep"]] == [2 * folds] * 2
    heads = [read_tensors(tmp_path / n / f"{task}.safetensors")[0] for n in ("one", "two")]
    assert all(torch.equal(heads[0][key], heads[1][key]) for key in heads[0] | heads[1])


@pytest.mark.parametrize("protocol", ["superb", "clean"])
def test_both_protocols_of_verification(corpus, tmp_path, protocol):
    result, _ = evaluated(corpus, tmp_path, "asv", protocol=protocol)
    value, best = result["metrics"]["eer"]["value"], result["best_on_test"]["eer"]
    assert result["protocol"] == protocol and 0 <= result["last_checkpoint"]["eer"] <= 100
    assert best <= result["last_checkpoint"]["eer"]
    (speakers,) = result["examples"]["classes"]
    if protocol == "superb":  # chosen where it is tested, as published; all others are heard
        assert value == best and speakers == 6
    else:
        assert value >= best and speakers == 4


@pytest.mark.parametrize("protocol", ["superb", "clean"])
def test_both_protocols_of_diarization(corpus, tmp_path, protocol):
    result, _ = evaluated(corpus, tmp_path, "sd", protocol=protocol)
    values = {name: metric["value"] for name, metric in result["metrics"].items()}
    assert values["der_superb"] <= values["der_clean"]
    assert values["der"] == values[f"der_{protocol}"]


def test_the_same_run_gives_the_same_bytes(corpus, encoder, tmp_path):
    for name in ("one", "two"):
        evaluated(corpus, tmp_path / name, "sid", encoder)
    for suffix in ("json", "csv", "safetensors"):
        first, second = ((tmp_path / n / f"sid.{suffix}").read_bytes() for n in ("one", "two"))
        assert first == second
    weights = read_json(tmp_path / "one" / "sid.json")["state_weights"]
    assert len(weights) == 3 and sum(weights) == pytest.approx(1, abs=1e-4)


def test_folds_hear_no_test_voice(corpus, tmp_path):
    result, rows = evaluated(corpus, tmp_path, "ks")
    assert result["examples"]["test"] == [48] * 4 and len(rows) == 192


def test_what_trains_no_head_has_no_seeds_of_heads():
    with pytest.raises(SkillError, match=r"superb\.tasks\.qbe\.head_seeds: qbe trains no head"):
        make_task("qbe", {"head_seeds": 2})


def test_a_task_without_its_corpus_says_so(corpus, tmp_path):
    with pytest.raises(SkillError, match="sid: the manifests have no utterance of queen"):
        evaluated(corpus, tmp_path, "sid", corpora=["queen"])
    utterances = read_manifest(corpus / "tones.csv")
    for task, said in (("er", "'SEE' is none of neu, hap, ang, sad"), ("ic", "'SEE' is no `act")):
        with pytest.raises(SkillError, match=f"v0-0: {said}"):
            folds_of(make_task(task, {"corpora": ["tones"]}), utterances)


def test_size_of_an_upstream(encoder, tmp_path):
    profile.run("small", encoder, tmp_path / "size.json", lengths=[16000, 32000])
    size = read_json(tmp_path / "size.json")
    assert size["parameters"] > 0 and size["macs"] > 1e6 and size["real_time_factor"] > 0
    profile.run("fbank", None, tmp_path / "fbank.json")
    assert read_json(tmp_path / "fbank.json")["parameters"] == 0


def test_folds_whose_metrics_are_averaged_share_one_learning_rate():
    folds = [[0.5, 0.9, 0.8], [0.9, 0.2, 0.8], [math.nan, 0.9, 0.7]]
    trained = [[SimpleNamespace(best=dev) for dev in row] for row in folds]
    assert evaluate.shared_rate(trained, "accuracy") == 2
    assert [evaluate.best_of(row, "accuracy").best for row in trained[:2]] == [0.9, 0.9]
