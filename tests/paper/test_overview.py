"""The README's picture."""

from pathlib import Path

import pytest

from skill.paper.figures.overview import overview
from skill.utils.errors import SkillError

STUDY = Path(__file__).parents[2] / "docs/study"
CLUSTERS = STUDY / "dendrogram-skill-wavlm-seed1.csv"


def test_a_bar_per_block_with_its_parameters() -> None:
    figure = overview(CLUSTERS, STUDY / "layers.csv", "skill-wavlm")
    bars = figure.axes[2].patches
    assert len(bars) == 12
    assert bars[11].get_height() == pytest.approx((160 + 1551) / 1e3, rel=0.01)
    colours = [bar.get_facecolor() for bar in bars]
    assert len(set(colours[:6])) == 1 and len(set(colours)) == 4  # the clusters' colours


def test_a_student_that_is_not_there() -> None:
    with pytest.raises(SkillError, match="no row of nobody"):
        overview(CLUSTERS, STUDY / "layers.csv", "nobody")
