"""A training goes on from the newest sound state of its own, whatever else lies in its folder."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skill.training.checkpoints import Checkpoints

OTHERS: list[Any] = [
    [1, 2],
    {"x": torch.ones(2)},
    {"fingerprint": 3, "step": 9},
    {"fingerprint": "mine", "step": "nine"},
    {"fingerprint": "mine", "step": -1},
    {"fingerprint": "mine"},
    {"fingerprint": "another", "step": 9},
    torch.ones(3),
]


@pytest.fixture
def saved(tmp_path: Path) -> Checkpoints:
    """Two states, of steps 3 and 7."""
    checkpoints = Checkpoints(tmp_path, "mine", is_main=True)
    for step in (3, 7):
        checkpoints.save(step, weights=torch.full((50,), float(step)))
    return checkpoints


def step_of(checkpoints: Checkpoints) -> int | None:
    state = checkpoints.load()
    if state is None:
        return None
    assert torch.equal(state["weights"], torch.full((50,), float(state["step"])))
    return int(state["step"])


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_a_valid_file_of_other_content_is_passed_over(
    saved: Checkpoints, other: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.save(other, saved.folder / "newest.pt")
    assert step_of(saved) == 3
    said = capfd.readouterr().err
    assert "newest.pt: damaged checkpoint skipped" in said or "of another run" in said


def test_folders_and_links_to_nowhere_are_passed_over(saved: Checkpoints) -> None:
    (saved.folder / "newest.pt").unlink()
    (saved.folder / "newest.pt").mkdir()
    (saved.folder / "next.pt").symlink_to(saved.folder / "nowhere")
    assert step_of(saved) == 3


def test_any_flipped_bit_costs_one_state_at_most(saved: Checkpoints) -> None:
    newest = saved.folder / "newest.pt"
    content = newest.read_bytes()

    @settings(
        max_examples=100,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(st.integers(0, 8 * len(content) - 1))
    def flip(bit: int) -> None:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        newest.write_bytes(damaged)
        assert step_of(saved) in (3, 7)

    flip()
    for size in (0, 1, len(content) // 2, len(content) - 1):
        newest.write_bytes(content[:size])
        assert step_of(saved) == 3
