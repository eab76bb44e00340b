"""Put the last runs' tables into the README and the pages of docs/, their files under docs/sample/.

Run by `make readme` after `make reproduce`, `snakemake studies` and `make benchmarks`; no number
there is typed.
"""

import csv
import shutil
import sys
from pathlib import Path

BEGIN, END = "<!-- results: begin -->\n", "<!-- results: end -->\n"
TABLES = ("results.md", "results.csv", "comparisons.csv", "size.csv")
STUDIES = [
    f"skill-wavlm-{study}.{kind}"
    for study in ("calibration", "stability", "criterion")
    for kind in ("csv", "png")
]


def with_table(page: str, table: str) -> str:
    """`page` with `table` between its two marks."""
    head, _, rest = page.partition(BEGIN)
    _, found, tail = rest.partition(END)
    if not found:
        raise SystemExit("the page has no results: begin … end marks")
    return head + BEGIN + table.strip() + "\n" + END + tail


def calibration_table(rows: list[dict[str, str]]) -> str:
    """The study's rows as Markdown: a line for each kernel and amount of audio."""
    linkages = list(dict.fromkeys(row["linkage"] for row in rows))
    lines = [
        f"| kernel | audio s | CKA error | {' | '.join(linkages)} |",
        "| --- " * (3 + len(linkages)) + "|",
    ]
    cells = {(row["kernel"], row["seconds"], row["linkage"]): row for row in rows}
    for kernel, seconds in dict.fromkeys((row["kernel"], row["seconds"]) for row in rows):
        found = [cells[kernel, seconds, linkage] for linkage in linkages]
        rand = " | ".join(f"{float(row['rand_all']):.2f}" for row in found)
        error = float(found[0]["cka_error"])
        lines.append(f"| {kernel} | {float(seconds):.0f} | {error:.3f} | {rand} |")
    return "\n".join(lines)


def benchmarks_page(folder: Path, programs: Path) -> str:
    """What each benchmark printed, below the first sentence of its program."""
    parts = [
        "# Benchmarks",
        "`make benchmarks` makes these figures, on a machine with nothing else to do.",
    ]
    for printed in sorted(folder.glob("*.txt")):
        program = programs / f"{printed.stem.partition('-')[0]}.py"
        first = program.read_text(encoding="utf-8").removeprefix('"""').partition("\n")[0]
        kept = printed.read_text(encoding="utf-8").strip("\n")
        parts += [
            f"## {printed.stem}",
            f"{first} (`benchmarks/{program.name}`)",
            f"```\n{kept}\n```",
        ]
    return "\n\n".join(parts) + "\n"


def rewrite(page: Path, table: str) -> None:
    """Put `table` into the file `page`."""
    page.write_text(with_table(page.read_text(encoding="utf-8"), table), encoding="utf-8")


def main() -> None:
    """Copy the tables, rewrite the pages."""
    kept = Path("docs/sample")
    kept.mkdir(parents=True, exist_ok=True)
    for source, names, command in (
        (Path("results/paper"), TABLES, "make reproduce"),
        (Path("results/studies"), STUDIES, "snakemake studies"),
    ):
        for name in names:
            if not (source / name).exists():
                sys.exit(f"{source / name} is missing: run `{command}` first")
            shutil.copyfile(source / name, kept / name)
    rewrite(Path("README.md"), (kept / "results.md").read_text(encoding="utf-8"))
    with (kept / "skill-wavlm-calibration.csv").open(encoding="utf-8") as file:
        rewrite(Path("docs/calibration.md"), calibration_table(list(csv.DictReader(file))))
    figures = Path("docs/benchmarks")
    page = benchmarks_page(figures, Path("benchmarks"))
    (figures / "README.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
