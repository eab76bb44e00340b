"""The exported folder does what s3prl asks of an upstream, without this package.

s3prl itself is not installed here: `RUNNER` asks what its runner and featurizer ask
(reference: s3prl 0.4.18, `downstream/runner.py` and `upstream/interfaces.py`).
"""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.encoders import error, irregular
from helpers.s3prl import s3prl_stand_in

from skill.encoder import SpeechEncoder, checkpoint
from skill.encoder.formats import export
from skill.utils.errors import SkillError

WITHOUT_SKILL = 'import sys\nsys.modules["skill"] = None\n'


@pytest.fixture
def exported(tmp_path: Path) -> tuple[SpeechEncoder, Path, Path]:
    """An encoder, its folder, and a checkout of the imitated s3prl."""
    encoder = irregular("wavlm", normalize=True)
    checkpoint.save_encoder(encoder, tmp_path / "skill-small 2.safetensors")
    folder = tmp_path / "an upstream"
    export.run(str(tmp_path / "skill-small 2.safetensors"), folder, ["s3prl"])
    package = s3prl_stand_in(tmp_path / "checkout/s3prl")
    return encoder, folder, package


def run(checkout: Path, program: Path, *options: str) -> dict[str, torch.Tensor]:
    """Run a program in s3prl's folder as its users do; returns what the runner saved."""
    (checkout.parent / "sitecustomize.py").write_text(WITHOUT_SKILL)
    done = subprocess.run(
        [sys.executable, str(program), "-u", "skill_small_2", *options],
        cwd=checkout,
        env={"PYTHONPATH": str(checkout.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said == {"names": ["hidden_states", "last_hidden_state"], "rate": 320}
    return torch.load(checkout / "features.pt", weights_only=True)


@torch.no_grad()
def assert_same(encoder: SpeechEncoder, features: dict[str, torch.Tensor]) -> None:
    """Each utterance's states are those that this project's encoder gives of it alone."""
    for row, wav in enumerate(features["wavs"]):
        for own, want in zip(features["states"], encoder(wav[None])[0], strict=True):
            assert error(own[row, : want.shape[1]], want[0]) < 1e-5


def test_the_launcher_registers_the_folder_with_s3prl(
    exported: tuple[SpeechEncoder, Path, Path],
) -> None:
    encoder, folder, package = exported
    assert_same(encoder, run(package, folder / "run_s3prl.py"))


def test_the_folder_may_be_copied_into_s3prl(exported: tuple[SpeechEncoder, Path, Path]) -> None:
    encoder, folder, package = exported
    shutil.copytree(folder, package / "upstream/small")
    shutil.rmtree(folder)
    assert_same(encoder, run(package, package / "run_downstream.py"))


def test_other_weights_are_taken_where_a_checkpoint_is_named(
    exported: tuple[SpeechEncoder, Path, Path], tmp_path: Path
) -> None:
    encoder, folder, package = exported
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(1.1)
    checkpoint.save_encoder(encoder, tmp_path / "other.safetensors")
    other = str(tmp_path / "other.safetensors")
    assert_same(encoder, run(package, folder / "run_s3prl.py", "-k", other))


def test_torch_hub_reads_the_folder(exported: tuple[SpeechEncoder, Path, Path]) -> None:
    _, folder, _ = exported
    code = WITHOUT_SKILL + (
        "import torch\n"
        f"model = torch.hub.load({str(folder)!r}, 'skill_small_2', source='local').eval()\n"
        "print(len(model([torch.zeros(8000)])['hidden_states']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "4\n", done.stderr


def test_names_and_frames_that_s3prl_cannot_take() -> None:
    assert export.s3prl.identifier("skill-wavlm.2") == "skill_wavlm_2"
    assert export.s3prl.identifier("4-clusters") == "skill_4_clusters"
    assert export.s3prl.identifier("class") == "skill_class"
    config = replace(irregular().config, conv_strides=(5, 2, 2, 2, 2, 2, 1))
    with pytest.raises(SkillError, match="160 samples apart; s3prl's tasks need 320"):
        export.s3prl.upstream(SpeechEncoder(config), "fast")


@pytest.mark.parametrize("name", ['a"\nimport os; os.remove("x")\n"', "a`b", "<b>", "-", "a|b"])
def test_a_name_that_is_more_than_a_name_is_refused(tmp_path: Path, name: str) -> None:
    checkpoint.save_encoder(irregular(), tmp_path / f"{name}.safetensors")
    for forms in ([], ["s3prl"]):
        with pytest.raises(SkillError, match="rename the file"):
            export.run(str(tmp_path / f"{name}.safetensors"), tmp_path / "out", forms)
    assert not (tmp_path / "out").exists()


def test_waveforms_that_are_not_finite_are_refused(
    exported: tuple[SpeechEncoder, Path, Path],
) -> None:
    from skill.encoder.formats.s3prl_expert import UpstreamExpert

    expert = UpstreamExpert(str(exported[1] / "model.safetensors"))
    for value in (float("nan"), float("inf")):
        wave = torch.zeros(4000)
        wave[7] = value
        with pytest.raises(ValueError, match="not finite"):
            expert([torch.zeros(5000), wave])


def test_the_folder_imports_torch_and_safetensors_alone(
    exported: tuple[SpeechEncoder, Path, Path],
) -> None:
    for file in exported[1].glob("*.py"):
        text = file.read_text(encoding="utf-8")
        imported = set(re.findall(r"^(?:from|import) (\w+)", text, flags=re.MULTILINE))
        assert imported - set(sys.stdlib_module_names) <= {"torch", "safetensors"}, file
