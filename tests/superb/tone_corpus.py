"""Utterances of tones, and a corpus of them with its evaluation, for several tests."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from skill.config.tasks import make_task
from skill.data.corpora.clips import band_limit, to_pcm
from skill.data.manifest import Utterance, read_manifest, write_manifest
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.encoder.checkpoint import save_folder
from skill.superb import evaluate
from skill.superb.examples import Example
from skill.utils.files import read_csv, read_json

WORDS = ("SEE", "MOON", "LAW", "KNEE")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Eight voices (pitches) say four words (overtones), several times each."""
    folder = tmp_path_factory.mktemp("corpus")
    generator = np.random.default_rng(0)
    rows, parts, start = [], [], 0
    for voice in range(8):
        for number in range(24):
            word = WORDS[number % 4]
            time = np.arange(int(16000 * generator.uniform(1.0, 1.2))) / 16000
            pitch = 110 * 2 ** (voice / 8)
            tone = np.sin(2 * np.pi * pitch * time)
            tone += 0.7 * np.sin(2 * np.pi * (700 + 600 * WORDS.index(word)) * time)
            signal = 0.2 * tone * np.hanning(len(time)) + 0.003 * generator.normal(size=len(time))
            signal = to_pcm(band_limit(signal, 16000))  # as all converted corpora
            split = "test" if number % 6 == 1 else "dev" if number % 6 == 2 else "train"
            rows.append(
                Utterance(f"v{voice}-{number}", "tones", str(folder / "tones.flac"), start,
                          len(signal), f"voice{voice}", "en", word, split, "synthetic")
            )  # fmt: skip
            parts.append(signal)
            start += len(signal)
    soundfile.write(folder / "tones.flac", np.concatenate(parts), 16000)
    write_manifest(folder / "tones.csv", rows)
    return folder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    torch.manual_seed(0)
    config = EncoderConfig.uniform("hubert", width=16, blocks=2, heads=2, ffn=32, conv=16)
    folder = tmp_path_factory.mktemp("encoder")
    save_folder(SpeechEncoder(config), folder)
    return folder


LABELS = {  # of a word, as the manifests of labelled corpora write them
    "ic": "activate;{};none", "sf": "{}/thing", "er": "{}",
}  # fmt: skip


MOODS = dict(zip(WORDS, ("neu", "hap", "ang", "sad"), strict=True))


def labelled(corpus, folder, task):
    """The same tones with the labels of another task."""
    rows = [
        replace(
            row, text=LABELS[task].format(MOODS[row.text] if task == "er" else row.text),
            speaker=f"Ses0{int(row.speaker[5:]) % 5 + 1}-{row.speaker}",
        ) for row in read_manifest(corpus / "tones.csv")
    ]  # fmt: skip
    write_manifest(folder / f"{task}-tones.csv", rows)
    return folder / f"{task}-tones.csv"


SETTINGS = {
    "pr": {},
    "asr": {"hidden": 16, "recurrent": 16, "recurrent_layers": 1, "spec_augment": False},
    "sid": {"folds": 2, "min_clips": 6, "order": "shuffled", "steps": 300, "eval_every": 100},
    "ks": {"folds": 4, "order": "shuffled", "min_clips": 4},
    "asv": {"hidden": 16, "pooled": 24, "protocol": "clean"},
    "sd": {"recurrent": 16, "train_seconds": 12, "dev_seconds": 8, "test_seconds": 8},
    "qbe": {"dev_seconds": 10, "test_seconds": 10, "prior": 1 / 101},
    "ic": {"steps": 200, "eval_every": 50},
    "sf": {
        "hidden": 16,
        "recurrent": 0,
        "recurrent_layers": 0,
        "spec_augment": False,
        "order": "shuffled",
    },
    "er": {"steps": 100, "eval_every": 50},
}


def evaluated(corpus, folder, task, encoder=None, **changes):
    settings = {"corpora": ["tones"], "bootstrap": 50, **SETTINGS[task]}
    if task != "qbe":
        settings = {"steps": 40, "eval_every": 20, "learning_rates": [1e-2, 1e-3], "batch": 8,
                    "accumulate": 1, **settings}  # fmt: skip
    job = SimpleNamespace(seed=1, task=make_task(task, {**settings, **changes}))
    name = "small" if encoder else "fbank"
    output = folder / f"{task}.json"
    manifest = labelled(corpus, folder, task) if task in LABELS else corpus / "tones.csv"
    evaluate.run(name, task, job, encoder, [manifest], output,
               output.with_suffix(".csv"), output.with_suffix(".safetensors"),
               folder / "scratch" / task)  # fmt: skip
    return read_json(output), read_csv(output.with_suffix(".csv"))


def tones(pitches, seconds=0.08):
    """Samples of a row of pure tones, one per symbol."""
    time = np.arange(int(16000 * seconds)) / 16000
    parts = [np.sin(2 * np.pi * hertz * time) * np.hanning(len(time)) for hertz in pitches]
    return (0.5 * np.concatenate(parts)).astype(np.float32)


def tone_example(number, target, pitches):
    samples = tones(pitches)
    return Example(f"u{number}", len(samples), target, number % 3, partial(np.copy, samples))


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
