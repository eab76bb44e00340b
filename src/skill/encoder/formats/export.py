"""A student as others load it: in `transformers`, ONNX Runtime, s3prl and DPHuBERT's code.

What is written needs nothing of this project: a Python file in it holds the encoder as well.
"""

import ast
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from skill.encoder import SpeechEncoder
from skill.encoder.checkpoint import load_encoder
from skill.encoder.formats import layouts, s3prl
from skill.utils.errors import SkillError
from skill.utils.files import read_header, replacing, write_json, write_tensors

_PACKAGE = Path(__file__).parents[2]
# The modules of `skill.encoder`, each after those that it imports.
CARRIED = ("config", "linear", "gating", "convolutions", "blocks", "model")


def run(
    student: str,
    folder: Path,
    forms: Sequence[str] = (),
    states: Literal["all", "last"] = "all",
) -> None:
    """Write the student (a name or a file) in the given forms of `FORMS`.

    Args:
        forms: none means the folder for `transformers`.
        states: which states ONNX models return.

    Raises:
        SkillError: there is no such student, or the form needs a package that is not installed.
    """
    path = find(student)
    header = read_header(path)
    encoder = load_encoder(path)
    for form in forms or ["transformers"]:
        FORMS[form](encoder, folder, path=path, header=header, states=states)


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
    _write_text(
        folder / "modeling_skill.py", self_contained(_PACKAGE / "encoder/formats/modeling_skill.py")
    )


def _onnx(
    encoder: SpeechEncoder, folder: Path, *, states: Literal["all", "last"], **_: Any
) -> None:
    try:
        from skill.encoder.formats import onnx_runtime
    except ModuleNotFoundError as error:
        raise SkillError(f"--onnx: {error.name} is missing: pip install -e '.[onnx]'") from None
    for file, difference in onnx_runtime.write(encoder, folder, states).items():
        print(f"{folder / file}: differs from torch by {difference:.2g} of the states' norm")


def _s3prl(
    encoder: SpeechEncoder, folder: Path, *, path: Path, header: dict[str, Any], **_: Any
) -> None:
    written = s3prl.files(encoder, path.stem)
    write_weights(encoder, header, folder / "model.safetensors")
    _write_text(folder / "expert.py", self_contained(_PACKAGE / "encoder/formats/s3prl_expert.py"))
    for file, text in written.items():
        _write_text(folder / file, text)


def _dphubert(encoder: SpeechEncoder, folder: Path, *, path: Path, **_: Any) -> None:
    layouts.write_dphubert(encoder, folder / f"{path.stem}.pth")


# What `python -m skill export` writes: `--NAME` for all but the first.
FORMS: dict[str, Callable[..., None]] = {
    "transformers": _transformers,
    "onnx": _onnx,
    "s3prl": _s3prl,
    "dphubert": _dphubert,
}


def find(student: str) -> Path:
    """The file of a student or teacher: a path, or a name under `results/`.

    Raises:
        SkillError: neither is there.
    """
    if Path(student).is_file():
        return Path(student)
    for root in (Path(), _PACKAGE.parents[1]):
        for phase in ("stage2", "teachers"):
            path = root / "results" / phase / f"{student}.safetensors"
            if path.is_file():
                return path
    raise SkillError(f"{student}: neither a file nor a model under results/")


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
    # The feature extractor normalises the waveforms where the model wants it.
    written = encoder.config.to_dict() | {"normalize_waveform": False}
    return {
        "model_type": "skill",
        "architectures": ["SkillModel"],
        "auto_map": {auto: f"modeling_skill.{name}" for auto, name in classes.items()},
        "encoder": written,
        "dtype": "float32",
    }


def write_weights(encoder: SpeechEncoder, header: dict[str, Any], path: Path) -> None:
    """The encoder's tensors, with this project's header, marked as torch's for `transformers`."""
    write_tensors(path, encoder.state_dict(), header, format="pt")


def self_contained(module: Path) -> str:
    """The source of `module` with the modules of `CARRIED` in the place where it imports them.

    The encoder's own methods that read and write files are left out.
    """
    docstring, rest = _split(module.read_text(encoding="utf-8"))
    imports, classes = _imports(rest)
    bodies = []
    for name in CARRIED:
        _, source = _split((_PACKAGE / f"encoder/{name}.py").read_text(encoding="utf-8"))
        more, body = _imports(_without_files(source))
        imports += more
        bodies.append(body)
    return f'"""{docstring}"""\n\n{_merged(imports)}\n{"".join(bodies)}\n{classes}'


def _split(text: str) -> tuple[str, str]:
    tree = ast.parse(text)
    return ast.get_docstring(tree) or "", _after(text, tree.body[0])


def _after(text: str, node: ast.stmt) -> str:
    return "".join(text.splitlines(keepends=True)[node.end_lineno :])


def _imports(text: str) -> tuple[list[ast.stmt], str]:
    """The import statements at the beginning, and what comes after them."""
    nodes = ast.parse(text).body
    found = list(takewhile(lambda node: isinstance(node, ast.Import | ast.ImportFrom), nodes))
    return found, _after(text, found[-1]) if found else text


def _merged(imports: Sequence[ast.stmt]) -> str:
    """One line per module, without this package's own."""
    plain = {ast.unparse(node) for node in imports if isinstance(node, ast.Import)}
    names: dict[str, set[str]] = {}
    for node in imports:
        if isinstance(node, ast.ImportFrom) and not str(node.module).startswith("skill."):
            names.setdefault(str(node.module), set()).update(map(ast.unparse, node.names))
    lines = [f"from {module} import {', '.join(sorted(names[module]))}" for module in names]
    return "\n".join([*sorted(plain), *sorted(lines)])


def _without_files(text: str) -> str:
    """`text` without the functions that import from this package."""
    lines = text.splitlines(keepends=True)
    for node in reversed(list(ast.walk(ast.parse(text)))):
        if isinstance(node, ast.FunctionDef) and any(
            isinstance(inner, ast.ImportFrom) and str(inner.module).startswith("skill")
            for inner in ast.walk(node)
        ):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            del lines[first - 1 : node.end_lineno]
    return "".join(lines)


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
