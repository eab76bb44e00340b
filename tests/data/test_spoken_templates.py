"""Synthetic speech from templates: labels, splits, marks, and the tasks that read them."""

from itertools import islice

import numpy as np
import pytest

from skill.config.params import Corpus
from skill.config.tasks import make_task
from skill.data.corpora import espeak, spoken_templates
from skill.data.corpora.prepare import store
from skill.data.manifest import read_manifest, write_manifest
from skill.superb.datasets import folds_of


def silent(sentence, voice, style=None):
    return np.full(8000, 0.1, dtype=np.float32), 22050


@pytest.fixture(scope="module")
def manifests(tmp_path_factory):
    """Manifests of all three corpora, where nothing is really spoken."""
    tmp_path, made = tmp_path_factory.mktemp("templates"), {}
    for kind, clips in spoken_templates.TEMPLATES.items():
        assert Corpus(kind=kind).stored
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(espeak, "speak", silent)
            rows = store(kind, clips(kind), "synthetic", tmp_path / f"{kind}.flac")
        write_manifest(tmp_path / f"{kind}.csv", rows)
        made[kind] = read_manifest(tmp_path / f"{kind}.csv")
    return made


def test_the_tasks_read_them_and_mark_them(manifests):
    for task, kind, classes in (
        ("ic", "spoken_commands", (6, 12, 4)), ("sf", "spoken_requests", (18,)),
        ("er", "spoken_moods", (4,)),
    ):  # fmt: skip
        folds = folds_of(make_task(task, {"corpora": [kind]}), manifests[kind])
        assert all(fold.synthetic for fold in folds)
        assert tuple(len(names) for names in folds[0].labels) == classes
        assert len(folds) == (5 if task == "er" else 1)


def test_splits_keep_voices_and_sentences_apart(manifests):
    for kind in ("spoken_commands", "spoken_requests"):
        speakers = {}
        for row in manifests[kind]:
            assert speakers.setdefault(row.speaker, row.split) == row.split
        assert set(speakers.values()) == {"train", "dev", "test"}
    texts = {split: {r.text for r in manifests["spoken_requests"] if r.split == split}
             for split in ("train", "dev", "test")}  # fmt: skip
    assert not texts["train"] & texts["test"] and not texts["train"] & texts["dev"]
    seen = {word.rpartition("/")[2] for text in texts["train"] for word in text.split()}
    assert seen >= {word.rpartition("/")[2] for text in texts["test"] for word in text.split()}
    sessions = {}
    for row in manifests["spoken_moods"]:
        assert (
            sessions.setdefault(row.speaker.partition("-")[2], row.speaker[:5]) == row.speaker[:5]
        )
    assert sorted(sessions.values()) == sorted([f"Ses0{n}" for n in range(1, 6)] * 2)


def test_moods_are_spoken_as_they_are_meant():
    pytest.importorskip("espeakng_loader")
    style = spoken_templates._MOODS
    sentence = "there is nothing left"
    found = {mood: espeak.speak(sentence, "en-us+f2", style[mood])[0] for mood in style}
    assert len(found["sad"]) > 1.15 * len(found["neu"]) > 1.15 * len(found["hap"])
    loudness = {mood: float(np.sqrt(np.mean(signal**2))) for mood, signal in found.items()}
    assert loudness["ang"] > loudness["neu"] > loudness["sad"]


@pytest.mark.parametrize("kind", spoken_templates.TEMPLATES)
def test_every_voice_can_speak(kind):
    pytest.importorskip("espeakng_loader")
    clips = {clip.speaker: clip for clip in spoken_templates.TEMPLATES[kind](kind)}
    for clip in islice(clips.values(), 0, None, 8):
        signal, rate = clip.load()
        assert rate == 22050 and 0.3 < len(signal) / rate < 6 and np.abs(signal).max() > 0.05
    assert all(len(clip.load()[0]) for clip in islice(espeak.clips("q"), 0, None, 72))
