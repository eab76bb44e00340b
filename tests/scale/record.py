"""Put what the last `make test-scale` measured into docs/scale.json and into docs/scale.md."""

import json
import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def table(record: dict[str, Any]) -> str:
    """The Markdown table of a record."""
    lines = [f"Machine: {record['machine']}.", "", "| phase | seconds | peak memory, MiB |"]
    lines += ["| --- | --- | --- |"]
    for phase, used in record["phases"].items():
        peak = used["mebibytes"]  # Snakemake looks at a job's memory after half a second at first
        peak = f"{peak:.0f}" if peak >= 1 else "too short to be seen"
        lines.append(f"| {phase} | {used['seconds']:.0f} | {peak} |")
    return "\n".join(lines)


def with_table(text: str, record: dict[str, Any]) -> str:
    """`text` with the record's table between the marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(record)}\n{END}{after}"


if __name__ == "__main__":
    shutil.copy(ROOT / "scratch/scale.json", ROOT / "docs/scale.json")
    page = ROOT / "docs/scale.md"
    measured = json.loads((ROOT / "docs/scale.json").read_text())
    page.write_text(with_table(page.read_text(), measured))
