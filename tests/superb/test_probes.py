"""Phones, ABX and keywords on generated speech whose alignment is known."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from skill.config.tasks import make_task
from skill.data.alignments import STEP, Phone, Word
from skill.data.manifest import Utterance
from skill.superb import probes
from skill.superb.datasets import aligned, folds_of
from skill.superb.upstream import Fbank, Upstream
from skill.utils.errors import SkillError

PITCH = {"AA": 300, "IY": 900, "UW": 1800, "S": 3500}  # Hz: phones that nobody takes for another
WORDS = {"sow": ("S", "UW"), "aye": ("AA", "IY"), "wis": ("UW", "IY", "S"), "see": ("S", "IY")}
TASK = {"corpora": ["tones"], "bootstrap": 50, "dev_seconds": 60, "test_seconds": 60}


@pytest.fixture(scope="module")
def spoken(tmp_path_factory) -> tuple[list[Utterance], dict[str, tuple[Word, ...]]]:
    """Sentences of four words by three voices, one file each, and where their phones are."""
    folder, draw = tmp_path_factory.mktemp("tones"), np.random.default_rng(0)
    utterances, table = [], {}
    for number in range(90):
        voice, at, words, wave = f"voice{number % 3}", 0, [], []
        for text in draw.choice(sorted(WORDS), 4):
            phones = []
            for name in WORDS[text]:
                frames = int(draw.integers(13, 20))
                time = np.arange(frames * STEP) / 16000
                pitch = PITCH[name] * (1 + 0.03 * (number % 3))
                wave.append(np.sin(2 * np.pi * pitch * time) + 0.1 * draw.normal(size=len(time)))
                phones.append(Phone(name, at, frames))
                at += frames
            words.append(Word(str(text), tuple(phones)))
        samples = np.concatenate(wave).astype(np.float32) * 0.3
        path = folder / f"{number}.flac"
        soundfile.write(path, samples, 16000)
        split = ("train", "train", "dev", "test")[number // 3 % 4]
        utterances.append(
            Utterance(f"t{number}", "tones", str(path), 0, len(samples), voice, split=split)
        )
        table[f"t{number}"] = tuple(words)
    return utterances, table


@pytest.fixture
def known(spoken, monkeypatch) -> list[Utterance]:
    monkeypatch.setattr(aligned, "_table", lambda: spoken[1])
    return spoken[0]


class Constant(Fbank):
    """An upstream that hears nothing: two states of equal frames."""

    states = 2

    def __call__(self, waveforms):
        nothing = np.eye(1, self.width, dtype=np.float32)
        return [
            states.new_tensor(nothing).expand(2, states.shape[1], -1)
            for states in super().__call__(waveforms)
        ]


def judged(name: str, utterances: list[Utterance], upstream: Upstream):
    task = make_task(name, {**TASK, "train_seconds": 60})
    return probes.evaluate(upstream, task, folds_of(task, utterances)[0], seed=0)


def test_log_mel_knows_tones_and_nothing_knows_none(known) -> None:
    result = judged("phones", known, Fbank()).result
    assert result["metrics"]["frame_accuracy"]["value"] > 93  # frames at borders hold two phones
    assert result["layers"][0]["test"] == pytest.approx(
        result["metrics"]["frame_accuracy"]["value"]
    )
    deaf = judged("phones", known, Constant()).result
    assert 20 < deaf["metrics"]["frame_accuracy"]["value"] < 45  # the most frequent of four
    assert len(deaf["layers"]) == 2


def test_abx_of_tones_is_small_and_of_nothing_a_half(known) -> None:
    made = judged("abx", known, Fbank())
    for name in ("abx_within", "abx_across"):
        assert made.result["metrics"][name]["value"] < 5
        share = sum(row[f"{name}_of"] for row in made.items)
        assert share == pytest.approx(1)  # the items' weights: a pair of phones and a speaker each
    deaf = judged("abx", known, Constant()).result["metrics"]
    assert deaf["abx_within"]["value"] == pytest.approx(50)
    assert deaf["abx_across"]["value"] == pytest.approx(50)
    assert {row["cluster"] for row in made.items} == {"voice0", "voice1", "voice2"}


def test_words_are_cut_where_the_alignment_says(known, spoken) -> None:
    task = make_task("keywords", {**TASK, "min_clips": 5})
    fold = folds_of(task, known)[0]
    assert fold.labels == (tuple(sorted(WORDS)),)
    example = next(e for e in fold.train if e.id == "t0#2")
    whole, _ = soundfile.read(known[0].path, dtype="float32")
    words = spoken[1]["t0"]
    start = STEP * words[2].phones[0].start
    length = STEP * sum(phone.frames for phone in words[2].phones)
    np.testing.assert_array_equal(example.read(), whole[start : start + length])
    assert fold.labels[0][example.target[0]] == words[2].text


def test_what_has_no_alignment_is_counted_and_a_foreign_one_is_an_error(
    spoken, monkeypatch, tmp_path: Path
) -> None:
    utterances, table = spoken
    fewer = {key: words for key, words in table.items() if key not in ("t0", "t7")}
    monkeypatch.setattr(aligned, "_table", lambda: fewer)
    task = make_task("phones", TASK)
    assert folds_of(task, utterances)[0].left_out == {"no alignment": 2}
    monkeypatch.setattr(aligned, "_table", lambda: {**table, "t5": table["t5"][:2]})
    with pytest.raises(SkillError, match=r"alignment of t5 has .* they are not of the same"):
        folds_of(task, utterances)
