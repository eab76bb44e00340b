"""The published rows are complete, and give the leaderboard's score where that is known."""

from pathlib import Path

import pytest

from skill.superb.score import superb_score
from skill.utils.files import read_csv

ROWS = read_csv(Path(__file__).parents[2] / "data/published.csv")
NAMES = ("pr", "asr", "ks", "qbe", "sid", "asv", "sd", "ic", "sf_f1", "sf_cer", "er")


def test_every_row_is_complete_and_has_a_source() -> None:
    keys = [(row["model"], row["million_parameters"], row["hours"]) for row in ROWS]
    assert len(set(keys)) == len(keys)
    assert all(row["source"].startswith("arXiv:") for row in ROWS)


@pytest.mark.parametrize(
    ("model", "printed"),
    [("DPHuBERT", 866), ("DPWavLM", 926), ("DistilHuBERT", 717), ("STaRHuBERT", 887)],
)
def test_the_score_is_the_leaderboards(model: str, printed: int) -> None:
    row = next(r for r in ROWS if r["model"] == model and r["hours"] == "960")
    assert superb_score({name: float(row[name]) for name in NAMES}) == pytest.approx(printed, abs=1)
