"""What made a result: a fingerprint of the code, and a stamp for the artefact.

Snakemake reruns a rule when its `params` change but does not look into the modules that its command
imports. So every rule has `code=fingerprint("skill.MODULE")` among its params: it changes when the
code changes, and only then. Comments, docstrings, layout and unrelated modules leave it alone.
Imports no torch.
"""

import ast
import hashlib
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from skill.utils import files, machine
from skill.utils.errors import SkillError

_ROOT = Path(__file__).parents[1]
# These say how a run is started, checked and shown, and what users import. What it computes with
# reaches it as values.
_APART = {
    "skill",
    "skill.utils.errors",
    "skill.utils.machine",
    "skill.utils.progress",
    "skill.utils.provenance",
}


def fingerprint(module: str, root: Path = _ROOT) -> str:
    """A hash of a module and all first-party modules that it imports, directly or not.

    Imports inside functions count, too. The modules are read, never imported.

    Args:
        module: dotted name, "skill.distillation.stages".
        root: folder of the package that the name starts with.

    Raises:
        SkillError: there is no such module.
    """
    package = module.partition(".")[0]
    if _source(module, package, root) is None:
        raise SkillError(f"{module}: there is no such module")
    digests: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        source = _source(name, package, root)
        if name in digests or _apart(name) or source is None:
            continue
        digests[name], imports = _digest(source.read_bytes(), name, source.name == "__init__.py")
        parents = (name.rpartition(".")[0],) if name.count(".") > 1 else ()
        waiting += [*imports, *parents]
    text = "\n".join(f"{name} {digest}" for name, digest in sorted(digests.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _apart(module: str) -> bool:
    return module in _APART or f"{module}.".startswith("skill.config.")


def _source(module: str, package: str, root: Path) -> Path | None:
    """The file of a first-party module; None for anything else."""
    first, *rest = module.split(".")
    if first != package:
        return None
    path = root.joinpath(*rest)
    for candidate in (path / "__init__.py", path.with_suffix(".py")):
        if candidate.is_file() and (rest or candidate.name == "__init__.py"):
            return candidate
    return None


@cache
def _digest(source: bytes, module: str, is_package: bool) -> tuple[str, tuple[str, ...]]:
    """Hash of the code without docstrings, and the names of all that it may import."""
    tree = ast.parse(source)
    imports: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")
                above = above[: len(above) - node.level + is_package]
                base = ".".join([*above, *([base] if base else [])])
            imports += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [s for s in node.body if not _is_text(s)] or [ast.Pass()]
    digest = hashlib.sha256(_written(tree).encode()).hexdigest()
    return digest, tuple(imports)


def _written(node: object) -> str:
    """A syntax tree as text, without the empty fields that only some versions of Python have."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
        inner = ", ".join(f"{name}={_written(value)}" for name, value in sorted(fields))
        return f"{type(node).__name__}({inner})"
    if isinstance(node, list):
        return "[" + ", ".join(map(_written, node)) + "]"
    return repr(node)


def _is_text(statement: ast.stmt) -> bool:
    """A docstring, of a module, class, function or field."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def stamp(
    inputs: Iterable[Path],
    params: BaseModel | Mapping[str, Any],
    precision: str | None = None,
) -> dict[str, Any]:
    """What an artefact says of its making: versions, parameters, the inputs' hashes, the machine.

    Nothing in it depends on the time or on paths: the same run on the same machine gives the same
    bytes. `precision` is what was computed in, whatever the parameters asked for.
    """
    values = params.model_dump(mode="json") if isinstance(params, BaseModel) else dict(params)
    return {
        "versions": {
            "skill": metadata.version("skill"),
            "torch": metadata.version("torch").partition("+")[0],
            "python": ".".join(platform.python_version_tuple()[:2]),
        },
        "params": values,
        "inputs": {Path(path).name: files.sha256(path) for path in inputs},
        "machine": machine.describe(precision),
    }
