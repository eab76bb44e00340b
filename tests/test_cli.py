"""The command line: help that fits a screen, exit codes, errors of one line, no torch to start."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from skill.cli import COMMANDS, main
from skill.utils.errors import describe

ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src")}


def test_help_fits_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 24 and max(map(len, lines)) <= 100
    panels = [line for line in lines if line.startswith("──")]
    assert len(panels) == 5  # four of commands, and the options
    for name, command in COMMANDS.items():
        assert re.search(rf"\b{name} +{re.escape(command.summary)}", "\n".join(lines))
        assert len(command.summary) < 36


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert "--threads" in text
    example = re.search(rf"Example:\n +skill {name} (.*)", text)
    assert example
    for option in re.findall(r"--[a-z]+", example[1]):
        assert f"{option} " in text.partition("Example")[0]


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    import skill

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"skill {skill.__version__}\n"


def test_shells_complete_commands() -> None:
    words = {"COMP_WORDS": "skill st", "COMP_CWORD": "1", "_SKILL_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [sys.executable, "-m", "skill"], env=ENVIRONMENT | words, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["stage1", "stage2", "stability"]


def test_bad_input_is_one_line_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "x")
    for words, message in (
        (["check", str(tmp_path / "none.yaml")], "error: "),
        (["teacher", "x", "--params", "{", "--output", output], "error: --params: no valid JSON"),
        (["teacher", "x", "--params", '{"source":"a","oops":1}', "--output", output],
         "error: --params.oops: unknown key\n"),
    ):  # fmt: skip
        assert main(words) == 1
        said = capsys.readouterr().err
        assert said.startswith(message) and said.count("\n") == 1


def test_wrong_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nonsense"]) == 2
    assert main(["check", "--gpus", "2"]) == 2
    assert main(["teacher", "x"]) == 2
    said = capsys.readouterr().err
    assert "No such command" in said and "No such option: --gpus" in said
    assert "Missing option '--params'" in said


def test_options_of_several_files_take_all_words_up_to_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(tmp_path / name) for name in ("a", "b c")]
    words = ["similarity", "--params", "{}", "--activations", *files, "--output", "x"]
    assert main(words) == 1
    assert files[0] in capsys.readouterr().err


def test_the_system_refuses_in_words(tmp_path: Path) -> None:
    with pytest.raises(OSError) as error:
        tmp_path.read_bytes()
    assert describe(error.value) == f"{tmp_path}: is a folder: give a file"


@pytest.mark.parametrize("delay", [0.05, 0.3, 0.8, 2.0])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_moment_leaves_no_traceback(
    delay: float, number: signal.Signals, tmp_path: Path
) -> None:
    """While modules are imported, and while the command works."""
    code = "from skill.__main__ import main; print(flush=True); main()"
    job = '{"kind": "synthetic", "speakers": 8, "sentences": 4000}'
    words = ["corpus", "c", "--params", job, "--output", str(tmp_path / "c.csv")]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "\n"
    time.sleep(delay)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode in (128 + number, -number)
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())
