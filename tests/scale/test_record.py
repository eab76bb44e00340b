"""docs/scale.md shows what docs/scale.json says."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("record", ROOT / "tests/scale/record.py")
assert _spec is not None and _spec.loader is not None
record = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(record)


def test_the_table_is_the_one_of_the_record() -> None:
    page = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
    measured = json.loads((ROOT / "docs/scale.json").read_text(encoding="utf-8"))
    assert record.with_table(page, measured) == page
    assert set(measured["phases"]) >= {"activations", "stage1", "stage2", "superb", "export"}
    assert record.with_table(page, measured | {"machine": "another"}) != page
