"""Files: whole or not there, what was written or a sentence, and errors in words."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ENVIRONMENT, ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from skill.utils import files
from skill.utils.errors import SkillError
from skill.utils.files import read_csv, write_csv
from skill.utils.text import printable

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
TENSORS = {
    "weight": torch.arange(12.0).reshape(3, 4),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "number": torch.tensor(7),
    "empty": torch.zeros(0, 2),
    "mask": torch.tensor([True, False]),
}
HEADER = {"kind": "encoder", "config": {"width": 48, "heads": [[0, 1], []]}}


@pytest.mark.parametrize("kind", ["json", "csv", "safetensors", "pt"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    """A limit on the size of files stands for the disk."""
    path = tmp_path / f"a result.{kind}"
    command = [sys.executable, "-c", FULL, str(path)]
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=True)
    assert done.stdout.startswith(f"{path}: cannot be written")
    assert not list(tmp_path.iterdir())


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    files.write_tensors(tmp_path / "a.safetensors", TENSORS, HEADER, format="pt")
    tensors, header = files.read_tensors(tmp_path / "a.safetensors")
    assert header == files.read_header(tmp_path / "a.safetensors") == HEADER
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], tensor) and tensors[name].dtype == tensor.dtype
    metadata = files.read_metadata(tmp_path / "a.safetensors")
    assert metadata["format"] == "pt"
    sums = json.loads(metadata["skill"])["sha256"]
    assert len(sums["header"]) == len(sums["tensors"]) == 64


def test_any_flipped_bit_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    """Nothing is changed by a bit in the space that fills the header up."""
    path = tmp_path / "a.safetensors"
    files.write_tensors(path, TENSORS, HEADER)
    content = path.read_bytes()

    @settings(max_examples=300, deadline=None)
    @given(st.integers(0, 8 * len(content) - 1))
    def flip(bit: int) -> None:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            tensors, header = files.read_tensors(path)
        except SkillError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
            return
        assert header.items() >= HEADER.items()  # a bit of the name of the checksums may be it
        assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())

    flip()
    files.write_tensors(path, TENSORS, HEADER)
    files.read_tensors(path)  # the checksum of this version was right; of the next it is not
    damaged = bytearray(content)
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(SkillError, match="damaged: the tensors are not what was written"):
        files.read_tensors(path)


def test_files_of_before_the_checksums_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    save_file({"x": torch.ones(2)}, path, {"skill": json.dumps(HEADER)})
    assert files.read_tensors(path)[1] == HEADER
    for broken in (None, [], {}, {"header": 3}, {"header": "0" * 64}):
        save_file({"x": torch.ones(2)}, path, {"skill": json.dumps(HEADER | {"sha256": broken})})
        with pytest.raises(SkillError, match="damaged: the `skill` header is not what"):
            files.read_tensors(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 10**6, "nested too deeply"),
        (b'{"a": ' * 10**5, "nested too deeply"),
        (b"9" * 10**5, "Exceeds the limit"),
        (b"\x00", "Expecting value"),
        (b'{"a": "\x00"}', "Invalid control character"),
        (b"\xff\xfe{}", "codec can't decode"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of Git LFS"),
        (b"", "Expecting value"),
    ],
    ids=["lists", "mappings", "number", "nul", "nul in a text", "utf-16", "lfs", "empty"],
)
def test_no_readable_json_is_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(SkillError, match=message) as raised:
        files.read_json(path)
    assert str(raised.value).startswith(f"{path}: ") and "\n" not in str(raised.value)
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(SkillError, match="1073741824 bytes are more than any has"):
        files.read_json(path)
    path.write_bytes(b"\xef\xbb\xbf[1]")  # a byte order mark, as some editors leave it
    assert files.read_json(path) == [1]


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode))
def test_whatever_stands_in_a_json_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    try:
        files.read_json(path)
    except SkillError as error:
        assert str(error).startswith(f"{path}: ")


@given(st.lists(st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]))))
def test_texts_of_others_come_back_and_are_no_formulas(tmp_path_factory, texts):
    """Whatever a name begins with, a spreadsheet shows it, and reading gives it back."""
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    write_csv(path, [{"name": text, "n": 1} for text in texts], ["name", "n"])
    assert [row["name"] for row in read_csv(path)] == texts


@pytest.mark.parametrize(
    ("text", "cell"),
    [("=1+1", "'=1+1"), ("@x", "'@x"), ("-a", "'-a"), ("'=1", "''=1"), ("'tis", "'tis"),
     ("-0.5", "-0.5"), ("+1e3", "+1e3"), ("-inf", "-inf"), ("a=b", "a=b"), ("", "")],
)  # fmt: skip
def test_a_formula_is_marked_and_a_number_is_not(tmp_path, text, cell):
    write_csv(tmp_path / "t.csv", [{"a": text, "b": ""}], ["a", "b"])
    assert (tmp_path / "t.csv").read_text() == f"a,b\n{cell},\n"


def test_control_characters_do_not_reach_a_terminal():
    assert printable("a\x1b[2J\tb\nc") == "a\ufffd[2J\ufffdb\nc"


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to a device"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, kind: str) -> None:
    """As root, `--output /dev/null` would put a file in the place of the device."""
    path = tmp_path / "out.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    before = path.lstat()
    with pytest.raises(SkillError, match="it is a folder, a pipe or"):
        files.write_json(path, {})
    assert path.lstat() == before and len(list(tmp_path.iterdir())) == 1


def test_the_command_refuses_such_an_output_before_it_works(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "out")
    job = json.dumps({"source": "nowhere"})
    command = [sys.executable, "-m", "skill", "teacher", "t", "--params", job, "--output"]
    done = subprocess.run(
        [*command, str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "out: is a pipe or a device: give a file" in done.stderr
    for words in ([str(tmp_path)], [__file__, "--output", "."]):
        done = subprocess.run([sys.executable, "-m", "skill", "analyze", *words], text=True,
                              capture_output=True, check=False)  # fmt: skip
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
