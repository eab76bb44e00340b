"""The phone probe against scikit-learn."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from skill.superb.phone_probe import fit_probe


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
