"""Put the last run's table into the README, and its small tables under docs/sample/.

Run by `make readme` after `make reproduce`; no number in the README is typed.
"""

import shutil
import sys
from pathlib import Path

BEGIN, END = "<!-- results: begin -->\n", "<!-- results: end -->\n"
TABLES = ("results.md", "results.csv", "comparisons.csv", "size.csv")


def with_table(readme: str, table: str) -> str:
    """`readme` with `table` between its two marks."""
    head, _, rest = readme.partition(BEGIN)
    _, found, tail = rest.partition(END)
    if not found:
        raise SystemExit("README.md has no results: begin … end marks")
    return head + BEGIN + table.strip() + "\n" + END + tail


def main() -> None:
    """Copy the tables, rewrite the README."""
    source, kept = Path("results/paper"), Path("docs/sample")
    kept.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        if not (source / name).exists():
            sys.exit(f"{source / name} is missing: run `make reproduce` first")
        shutil.copyfile(source / name, kept / name)
    readme = Path("README.md")
    table = (kept / "results.md").read_text(encoding="utf-8")
    readme.write_text(with_table(readme.read_text(encoding="utf-8"), table), encoding="utf-8")


if __name__ == "__main__":
    main()
