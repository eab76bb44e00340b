"""Files: whole or not there, and errors in words."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, ROOT

FULL = """
import resource, sys
import torch
from skill.utils import files
from skill.utils.errors import SkillError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
value = torch.zeros(10_000)
write = {
    "json": lambda path: files.write_json(path, value.tolist()),
    "csv": lambda path: files.write_csv(path, [{"x": 1.0}] * 10_000, ["x"]),
    "safetensors": lambda path: files.write_tensors(path, {"x": value}, {}),
    "pt": lambda path: files.write_state(path, {"x": value}),
}
path = sys.argv[1]
try:
    write[path.rpartition(".")[2]](path)
except SkillError as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ["json", "csv", "safetensors", "pt"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    """A limit on the size of files stands for the disk."""
    path = tmp_path / f"a result.{kind}"
    command = [sys.executable, "-c", FULL, str(path)]
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=True)
    assert done.stdout.startswith(f"{path}: cannot be written")
    assert not list(tmp_path.iterdir())
