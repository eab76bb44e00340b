"""Put the last runs' tables into the README and the pages of docs/, their files under docs/sample/.

Run by `make readme` after `make reproduce`, `snakemake studies` and `make benchmarks`. With a
preset and the folder of its run it writes the preset's page instead, docs/study/ for example:

    python tools/readme.py presets/study.yaml DIR

No number there is typed.
"""

import json
import shutil
import sys
from pathlib import Path

from skill.config import params
from skill.utils.files import read_csv
from skill.workflow import outputs

ROOT = Path(__file__).parents[1]
TABLES = (
    "results.md",
    "results.csv",
    "comparisons.csv",
    "size.csv",
    "regression.csv",
    "regression.png",
)
STUDIES = [
    f"skill-wavlm-{study}.{kind}"
    for study in ("calibration", "stability", "criterion")
    for kind in ("csv", "png")
]


def with_table(page: str, table: str, name: str = "results") -> str:
    """`page` with `table` between the two marks of this name."""
    begin, end = (f"<!-- {name}: {where} -->\n" for where in ("begin", "end"))
    head, _, rest = page.partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise SystemExit(f"the page has no {name}: begin … end marks")
    return head + begin + table.strip() + "\n" + end + tail


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
        "`make benchmarks` makes these figures; nothing else should run then. The programs follow "
        "each other, so the load that one finds at its start is the one before it. Candidates take "
        "turns: their ratios are steadier than their seconds. A profile's times are those of a run "
        "that is being watched, which is slower.",
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


def rewrite(page: Path, table: str, name: str = "results") -> None:
    """Put `table` into the file `page`."""
    text = with_table(page.read_text(encoding="utf-8"), table, name)
    page.write_text(text, encoding="utf-8")


def study_table(folder: Path) -> str:
    """The study's methods of several seeds and what bounds them, on the tasks of real speech.

    A triangle: better (up) or worse (down) than the baseline by the paired test.
    """
    rows = [r for r in read_csv(folder / "results.csv") if r["synthetic"] == "False"]
    signs = {}
    for r in read_csv(folder / "comparisons.csv"):
        sure = (float(r["low"]) > 0) - (float(r["high"]) < 0)
        signs[r["first"], r["second"], r["task"], r["metric"]] = sure
        signs[r["second"], r["first"], r["task"], r["metric"]] = -sure
    baseline = {r["student"]: r["reference"] for r in read_csv(folder / "methods.csv")}
    columns = list(dict.fromkeys((r["task"], r["metric"], r["low_is_good"]) for r in rows))
    titles = _titles(rows)
    lines = [["upstream", "parameters", *(titles[t, m] for t, m, _ in columns)]]
    lines.append(["---"] * len(lines[0]))
    kinds = {r["upstream"]: ["teacher", "student", "fbank"].index(r["kind"]) for r in rows}
    for name in sorted(kinds, key=lambda upstream: kinds[upstream]):
        own = {(r["task"], r["metric"], r["low_is_good"]): r for r in rows if r["upstream"] == name}
        first = next(iter(own.values()))
        if first["kind"] == "student" and int(first["seeds"]) < 3:
            continue
        line = [name, f"{int(first['parameters']) / 1e6:.2f} M"]
        for task, metric, low in columns:
            r = own[task, metric, low]
            digits = 1 if r["unit"] else 3
            spread = f" ± {float(r['deviation']):.{digits}f}" if r["deviation"] else ""
            higher = signs.get((name, baseline.get(name, ""), task, metric), 0)
            mark = {1: " ▲", -1: " ▼", 0: ""}[-higher if low == "True" else higher]
            line.append(f"{float(r['value']):.{digits}f}{spread}{mark}")
        lines.append(line)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _titles(rows: list[dict[str, str]]) -> dict[tuple[str, str], str]:
    """{(task, metric): column head} of the rows of `results.csv`."""
    arrows = {"True": "↓", "False": "↑"}
    return {
        (r["task"], r["metric"]): f"{r['task'].upper()} {r['metric']} {arrows[r['low_is_good']]}, "
        f"n = {r['items']}"
        for r in rows
    }


def floor_table(folder: Path) -> str:
    """Each teacher less log-mel features on the same test items, with the paired test's interval.

    Bold: better by that test, at 95 %.
    """
    gaps: dict[str, dict[tuple[str, str], list[float]]] = {}
    for r in read_csv(folder / "comparisons.csv"):
        gap, low, high = (float(r[key]) for key in ("difference", "low", "high"))
        column = (r["task"], r["metric"])
        if r["second"] == "fbank":
            gaps.setdefault(r["first"], {})[column] = [gap, low, high]
        elif r["first"] == "fbank":
            gaps.setdefault(r["second"], {})[column] = [-gap, -high, -low]
    rows = read_csv(folder / "results.csv")
    low_is_good = {(r["task"], r["metric"]): r["low_is_good"] == "True" for r in rows}
    titles = _titles(rows)
    columns = [column for column in titles if any(column in own for own in gaps.values())]
    lines = [
        ["less fbank, points", *(titles[column] for column in columns)],
        ["---"] * (len(columns) + 1),
    ]
    for name, own in gaps.items():
        line = [name]
        for column in columns:
            gap, low, high = own[column]
            bold = "**" if (high < 0 if low_is_good[column] else low > 0) else ""
            line.append(f"{bold}{gap:+.1f}{bold} [{low:+.1f}, {high:+.1f}]")
        lines.append(line)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def preset_page(folder: Path) -> str:
    """What a run of a preset found, from the files kept in `folder`."""
    made = json.loads((folder / "made.json").read_text(encoding="utf-8"))
    preset = made["preset"]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(made["versions"].items()))
    command = f"snakemake --cores all --config params={preset} --directory DIR"
    lines = [f"# What {preset} found", "", f"Made by `{command}` with {versions}, parameters in"]
    lines += ["[params.yaml](params.yaml). Brackets: 95 % bootstrap intervals over test voices."]
    if (folder / "params.yaml").read_bytes() != (ROOT / preset).read_bytes():
        lines += ["", f"**{preset} has changed since this run**: these are results of the preset,"]
        lines += ["and of the sample teachers, of that time."]
    lines += ["", (folder / "results.md").read_text(encoding="utf-8").strip(), ""]
    lines += [f"![{p.stem}]({p.name})\n" for p in sorted(folder.glob("*.png"))]
    lines += ["What the figures and this table are drawn from:", ""]
    lines += [f"* [{p.name}]({p.name})" for p in sorted(folder.glob("*.csv"))]
    return "\n".join(lines) + "\n"


def keep_preset(preset: Path, run: Path, folder: Path) -> None:
    """Copy what the run of `preset` in `run` found to `folder`, and write its page."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = [name for name in outputs.figures(params.load(preset)) if name != "published"]
    names = ["results.csv", "results.md", "comparisons.csv"]
    names += [f"{name}.{kind}" for name in figures for kind in ("csv", "png")]
    if missing := [name for name in names if not (run / "results/paper" / name).exists()]:
        sys.exit(f"{run / 'results/paper'} has no {missing[0]}: run {preset} first")
    for old in [*folder.glob("*.csv"), *folder.glob("*.png")]:  # of an earlier run
        old.unlink()
    for name in names:
        shutil.copyfile(run / "results/paper" / name, folder / name)
    task = next(p for p in sorted((run / "results/superb").glob("*/*.json")) if p.stem != "size")
    versions = json.loads(task.read_text(encoding="utf-8"))["provenance"]["versions"]
    made = {"preset": preset.as_posix(), "versions": versions}
    (folder / "made.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(preset, folder / "params.yaml")
    (folder / "README.md").write_text(preset_page(folder), encoding="utf-8")


def main() -> None:
    """Copy the tables, rewrite the pages."""
    if len(sys.argv) == 3:
        preset = Path(sys.argv[1])
        keep_preset(preset, Path(sys.argv[2]), Path("docs") / preset.stem)
        rewrite(Path("README.md"), study_table(Path("docs/study")), "study")
        return
    if len(sys.argv) > 1:
        sys.exit(f"{sys.argv[0]} [PRESET DIR]")
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
    rewrite(Path("README.md"), floor_table(kept), "floor")
    rewrite(
        Path("docs/calibration.md"),
        calibration_table(read_csv(kept / "skill-wavlm-calibration.csv")),
    )
    figures = Path("docs/benchmarks")
    page = benchmarks_page(figures, Path("benchmarks"))
    (figures / "README.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
