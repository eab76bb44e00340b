"""The phone probe: against scikit-learn, labels of frames, and which clips are drawn."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from skill.data.alignments import Phone, Word
from skill.data.manifest import Utterance
from skill.superb.phone_probe import PHONES, fit_probe, labels_of_frames, probe_clips


def test_the_classifier_is_logistic_regression() -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 5, (600,))
    features = torch.randn(5, 8)[labels] + 1.5 * torch.randn(600, 8)
    probe = fit_probe(features, labels, phones=5)
    x = ((features - probe.mean) / probe.deviation).numpy()
    # scikit-learn minimises the summed loss and half of the squared weights / C.
    reference = LogisticRegression(C=1 / (2 * 1e-4 * 600), max_iter=2000, tol=1e-8).fit(x, labels)
    wanted = 100 * reference.score(x, labels)
    assert abs(probe.accuracy(features, labels) - wanted) < 0.5
    ours = torch.softmax(torch.from_numpy(x) @ probe.weight + probe.bias, -1)
    np.testing.assert_allclose(ours, reference.predict_proba(x), atol=0.02)


def test_frames_have_the_phone_at_their_centre_and_silence_none() -> None:
    words = (
        Word("<sil>", (Phone("SIL", 0, 4),)),
        Word("be", (Phone("B", 4, 2), Phone("IY", 6, 3))),
    )
    utterance = Utterance("u", "c", "p", 0, 2000)
    labels = labels_of_frames({"u": words}, utterance, 6, centre=200)
    # Centres: 200, 520, 840, 1160, 1480 and 1800 samples, frames 1, 3, 5, 7, 9 and 11 of 10 ms.
    b, iy = PHONES.index("B"), PHONES.index("IY")
    assert labels.tolist() == [-1, -1, b, iy, -1, -1]


def test_clips_are_aligned_ones_of_their_splits() -> None:
    splits = ("train", "dev", "test")
    utterances = [Utterance(f"u{i}", "c", "p", 0, 9, split=splits[i % 3]) for i in range(60)]
    alignments = {f"u{i}": (Word("a", ()),) for i in range(0, 60, 2)}
    train, test = probe_clips(utterances, alignments, 5, 50, seed=3)
    assert len(train) == 5 and len(test) == 20
    assert {u.split for u in train} == {"train"} and {u.split for u in test} == {"dev", "test"}
    assert all(u.id in alignments for u in train + test)
    assert probe_clips(utterances, alignments, 5, 50, seed=3) == (train, test)
