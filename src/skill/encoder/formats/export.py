"""A student as others load it: in `transformers`, ONNX Runtime, s3prl and DPHuBERT's code.

What is written needs nothing of this project: the encoder's modules are copied beside it. They
import each other relatively, so the copies are the files themselves.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from skill.encoder import SpeechEncoder
from skill.encoder.checkpoint import find_encoder, load_encoder, stored_header
from skill.encoder.formats import dphubert, s3prl
from skill.utils.errors import SkillError
from skill.utils.files import replacing, replacing_folder, write_json, write_tensors

_ENCODER = Path(__file__).parents[1]
# The modules of `skill.encoder` that the network needs.
CARRIED = ("config", "float32", "gating", "convolutions", "blocks", "model")


def run(
    student: str,
    folder: Path,
    forms: Sequence[str] = (),
    states: Literal["all", "last"] = "all",
    texts: Mapping[str, str] = {},
) -> None:
    """Write the student (a name, a file or a folder) in the given forms of `FORMS`, or nothing.

    Args:
        forms: none means the folder for `transformers`.
        states: which states ONNX models return.
        texts: further files of the folder by their names, its card for instance.

    Raises:
        SkillError: there is no such student, its name is no file's name, the form needs a package
            that is not installed, or the folder cannot be written.
    """
    path = find_encoder(student)
    name = encoder_name(path)
    header, encoder = stored_header(path), load_encoder(path)
    with replacing_folder(folder) as target:
        for form in forms or ["transformers"]:
            FORMS[form](encoder, target, name=name, header=header, states=states)
        for file, text in texts.items():
            _write_text(target / file, text)


def encoder_name(path: Path) -> str:
    """What a model in that file or folder is called.

    Raises:
        SkillError: the name has other characters than letters, digits, space and `._+-`.
    """
    path = path.resolve()
    name = path.name if path.is_dir() else path.stem
    if not re.fullmatch(r"\w[\w .+-]{0,99}", name):
        raise SkillError(
            f"{str(path)!r}: a model that is exported is named by letters, digits, spaces and ._+- "
            "(at most 100); rename the file"
        )
    return name


def _transformers(
    encoder: SpeechEncoder, folder: Path, *, header: dict[str, Any], **_: Any
) -> None:
    write_weights(encoder, header, folder / "model.safetensors")
    write_json(folder / "config.json", configuration(encoder))
    write_json(
        folder / "preprocessor_config.json",
        {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "do_normalize": encoder.config.normalize_waveform,
            "feature_size": 1,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": True,
            "sampling_rate": 16000,
        },
    )
    _copy_modules(folder, {"formats/modeling_skill.py": "modeling_skill.py"})


def _onnx(
    encoder: SpeechEncoder, folder: Path, *, states: Literal["all", "last"], **_: Any
) -> None:
    try:
        from skill.encoder.formats import onnx_runtime
    except ModuleNotFoundError as error:
        raise SkillError(f"--onnx: {error.name} is missing: pip install -e '.[onnx]'") from None
    for file, difference in onnx_runtime.write(encoder, folder, states).items():
        print(f"{file}: differs from torch by {difference:.2g} of the states' norm")


def _s3prl(
    encoder: SpeechEncoder, folder: Path, *, name: str, header: dict[str, Any], **_: Any
) -> None:
    write_json(folder / "upstream.json", s3prl.upstream(encoder, name))
    write_weights(encoder, header, folder / "model.safetensors")
    _copy_modules(folder, s3prl.FILES)


def _dphubert(encoder: SpeechEncoder, folder: Path, *, name: str, **_: Any) -> None:
    dphubert.write_dphubert(encoder, folder / f"{name}.pth")


# What the command `export` writes: `--NAME` for all but the first.
FORMS: dict[str, Callable[..., None]] = {
    "transformers": _transformers,
    "onnx": _onnx,
    "s3prl": _s3prl,
    "dphubert": _dphubert,
}


def register() -> None:
    """Let `AutoModel` load exported folders with this package's code instead of the folder's."""
    from transformers import AutoConfig, AutoModel, AutoModelForCTC

    from skill.encoder.formats.modeling_skill import SkillConfig, SkillForCTC, SkillModel

    AutoConfig.register("skill", SkillConfig, exist_ok=True)
    AutoModel.register(SkillConfig, SkillModel, exist_ok=True)
    AutoModelForCTC.register(SkillConfig, SkillForCTC, exist_ok=True)


def configuration(encoder: SpeechEncoder) -> dict[str, Any]:
    """What `config.json` says: the architecture, and which classes of which file read it."""
    classes = {
        "AutoConfig": "SkillConfig",
        "AutoModel": "SkillModel",
        "AutoModelForCTC": "SkillForCTC",
    }
    return {
        "model_type": "skill",
        "architectures": ["SkillModel"],
        "auto_map": {auto: f"modeling_skill.{name}" for auto, name in classes.items()},
        "encoder": encoder.config.to_dict(),
        "dtype": "float32",
    }


def write_weights(encoder: SpeechEncoder, header: dict[str, Any], path: Path) -> None:
    """The encoder's tensors, with this project's header, marked as torch's for `transformers`."""
    header = header | {"kind": "encoder", "config": encoder.config.to_dict()}
    write_tensors(path, encoder.state_dict(), header, format="pt")


def _copy_modules(folder: Path, files: Mapping[str, str]) -> None:
    """Copies of the encoder's modules, and of further files of `skill.encoder` under new names."""
    modules = {f"{name}.py": f"{name}.py" for name in CARRIED}
    for source, name in (modules | dict(files)).items():
        text = (_ENCODER / source).read_text(encoding="utf-8")
        # In the folder, all stand beside each other.
        _write_text(folder / name, text.replace("\nfrom ..", "\nfrom ."))


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
