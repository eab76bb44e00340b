"""Fingerprints follow the code that runs, and nothing else; stamps are stable."""

import ast
from pathlib import Path

import pytest

from skill.config.params import Clustering
from skill.utils import provenance
from skill.utils.errors import SkillError
from skill.utils.provenance import fingerprint, stamp

FILES = {
    "pkg/__init__.py": '"""A package."""\n',
    "pkg/top.py": (
        '"""Top."""\nimport os\nfrom pkg import middle\n\n\ndef f():\n    """Do."""\n'
        "    from pkg.sub import late\n    return middle.g() + late.X\n"
    ),
    "pkg/middle.py": "from . import leaf\n\n\ndef g():\n    return leaf.CONSTANT\n",
    "pkg/leaf.py": "CONSTANT = 1  # one\n",
    "pkg/sub/__init__.py": "",
    "pkg/sub/late.py": "from ..leaf import CONSTANT as X\n",
    "pkg/apart.py": "Y = 1\n",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "pkg"


@pytest.mark.parametrize(
    ("name", "old", "new", "same"),
    [
        ("top.py", '"""Do."""', '"""Do it well."""', True),
        ("top.py", '"""Top."""\n', "", True),
        ("leaf.py", "# one", "# another remark", True),
        ("leaf.py", "CONSTANT = 1", "CONSTANT=(1)", True),
        ("apart.py", "Y = 1", "Y = 2", True),
        ("leaf.py", "CONSTANT = 1", "CONSTANT = 2", False),
        ("sub/late.py", "as X", "as X\nZ = 1", False),
        ("sub/__init__.py", "", "A = 1\n", False),
        ("middle.py", "return leaf.CONSTANT", "return -leaf.CONSTANT", False),
    ],
)
def test_changes(package: Path, name: str, old: str, new: str, same: bool) -> None:
    before = fingerprint("pkg.top", package)
    path = package / name
    path.write_text(path.read_text().replace(old, new, 1))
    assert (fingerprint("pkg.top", package) == before) is same


def test_empty_fields_of_later_pythons_are_no_difference() -> None:
    tree = ast.parse("def f(x): return x")
    before = provenance._written(tree)
    later = type("FunctionDef", (ast.FunctionDef,), {})
    later._fields = (*ast.FunctionDef._fields, "type_params")
    function = tree.body[0]
    tree.body[0] = later(**dict(ast.iter_fields(function)), type_params=[])
    assert provenance._written(tree) == before
    tree.body[0].type_params = [ast.Name("T")]
    assert provenance._written(tree) != before


def test_unknown_module_is_refused(package: Path) -> None:
    with pytest.raises(SkillError, match=r"pkg\.nothing"):
        fingerprint("pkg.nothing", package)


def test_parameters_and_progress_are_no_part(package: Path) -> None:
    """What these modules say reaches a program as values, which are a rule's params anyway."""
    assert fingerprint("skill.distillation.stages") != fingerprint("skill.teachers.pretraining")
    for name in ("skill.config.params", "skill.utils.progress"):
        empty = fingerprint(name)
        assert empty == fingerprint("skill.utils.errors")


def test_stamp_is_stable_and_names_inputs(tmp_path: Path) -> None:
    file = tmp_path / "input.csv"
    file.write_text("a\n")
    section = Clustering(num_clusters=3)
    made = stamp([file], section)
    assert made == stamp([file], section)
    assert list(made["inputs"]) == ["input.csv"]
    assert made["params"]["num_clusters"] == 3
    assert str(tmp_path) not in str(made)
    assert "+" not in made["versions"]["torch"]
