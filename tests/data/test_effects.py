"""sox's effects against sox and closed forms; recordings of other rates, channels and formats."""

import shutil
import subprocess

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from skill.data import effects

LENGTHS = st.lists(st.integers(1, 6000), min_size=1, max_size=9)


def bursts(lengths, seed=0, quiet=0.0):
    """Noise and (nearly) silence in turn, of so many samples each."""
    generator = np.random.default_rng(seed)
    parts = [
        generator.normal(0, 0.05 if number % 2 else max(quiet, 1e-12), length)
        for number, length in enumerate(lengths)
    ]
    return np.concatenate(parts).astype(np.float32)


def sample_by_sample(signal):
    """The effect's rule as a loop: search 0.1 s of sound, then 0.1 s of silence, and again."""
    kept, held, window, speaking = [], [], [0.0] * 320, False
    for sample in signal.tolist():
        window = [*window[1:], sample**2]
        loud = sum(window) > 320 * 0.001**2
        if speaking and loud:
            kept, held = [*kept, *held, sample], []
        elif speaking == loud:
            held = []
        else:
            held.append(sample)
            if len(held) == 1600:
                kept, held = (kept if speaking else [*kept, *held]), []
                if speaking:
                    window = [0.0] * 320
                speaking = not speaking
    return np.array([*kept, *held] if speaking else kept, dtype=np.float32)


@settings(max_examples=12, deadline=None)
@given(LENGTHS, st.integers(0, 99))
def test_silence_is_cut_as_sample_by_sample(lengths, seed):
    signal = bursts(lengths, seed)
    np.testing.assert_array_equal(effects.trim_silence(signal), sample_by_sample(signal))


def test_silence_before_within_and_none():
    sound = bursts([0, 16000])
    assert len(effects.trim_silence(np.zeros(20000, dtype=np.float32))) == 0
    assert len(effects.trim_silence(sound[:1500])) == 0  # no tenth of a second
    kept = effects.trim_silence(sound)
    assert len(kept) > 15990 and (kept == sound[-len(kept) :]).all()
    paused = np.concatenate([np.zeros(5000), sound, np.zeros(9000), sound, np.zeros(900)])
    kept = effects.trim_silence(paused.astype(np.float32))
    assert abs(len(kept) - 2 * 16000 - 900) <= 2 * 320  # a short silence at the end stays
    assert effects.attenuate(sound) == pytest.approx(0.70795 * sound, rel=1e-4)


@pytest.mark.skipif(not shutil.which("sox"), reason="sox is not installed")
@pytest.mark.parametrize("seed", range(24))
def test_effects_equal_sox(tmp_path, seed):
    generator = np.random.default_rng(seed)
    signal = bursts(
        generator.integers(100, 9000, 12), seed, quiet=generator.choice([0, 9e-4, 2e-3])
    )
    soundfile.write(tmp_path / "in.wav", signal, 16000, "FLOAT")
    command = "sox in.wav -e floating-point -b 32 out.wav gain -3.0 silence 1 0.1 0.1% -1 0.1 0.1%"
    subprocess.run(command.split(), cwd=tmp_path, check=True)
    theirs, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
    ours = effects.attenuate_and_trim(signal)
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
