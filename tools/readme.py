"""Put the last runs' tables into the README and the pages of docs/, their files under docs/sample/.

Run by `make readme` after `make reproduce`, `snakemake studies` and `make benchmarks`. With a
preset and the folder of its run it writes the preset's page instead, docs/study/ for example:

    python tools/readme.py presets/study.yaml DIR

No number there is typed.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from skill.config.load import load
from skill.paper.figures import style
from skill.paper.figures.overview import overview
from skill.paper.results_table import undecided
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


def compact_table(folder: Path, rows: int = 6) -> str:
    """The README's table: a column per task's first metric, without intervals.

    At most so many rows: the teacher, the baseline's and SKILL's students, log-mel features.
    """
    results = pd.read_csv(folder / "results.csv")
    tests = read_csv(folder / "comparisons.csv")
    absent = undecided(results.to_dict("records"), tests)
    keys = pd.Series(list(zip(results["task"], results["metric"], strict=True)))
    results = results[~results["synthetic"] & ~keys.isin(absent)]
    first = results.drop_duplicates(["upstream", "task"])
    shown = _wide(first, lambda row: _number(row["value"], row["unit"]))
    return _markdown(shown.head(rows))


def study_table(folder: Path) -> str:
    """The methods of several seeds, teachers and log-mel features, on tasks of real speech.

    A triangle: better (up) or worse (down) than the baseline by the paired test.
    """
    results = pd.read_csv(folder / "results.csv")
    few = (results["kind"] == "student") & (results["seeds"] < 3)
    results = results[~results["synthetic"] & ~few]
    tests = pd.read_csv(folder / "comparisons.csv")
    certain = (tests["low"] > 0).astype(int) - (tests["high"] < 0).astype(int)
    keys = ["task", "metric"]
    signs = dict(
        zip(tests[["first", "second", *keys]].itertuples(index=False), certain, strict=True)
    )
    signs |= {(b, a, t, m): -sign for (a, b, t, m), sign in signs.items()}
    methods = pd.read_csv(folder / "methods.csv")
    baseline = dict(zip(methods["student"], methods["reference"], strict=True))

    def cell(row: "pd.Series[Any]") -> str:
        spread = "" if pd.isna(row["deviation"]) else f" ± {_number(row['deviation'], row['unit'])}"
        pair = (row["upstream"], baseline.get(row["upstream"], ""), row["task"], row["metric"])
        higher = signs.get(pair, 0) * (-1 if row["low_is_good"] else 1)
        return _number(row["value"], row["unit"]) + spread + {1: " ▲", -1: " ▼", 0: ""}[higher]

    return _markdown(_wide(results, cell))


def floor_table(folder: Path) -> str:
    """Each upstream's difference to log-mel features on the same test items, with its interval.

    Bold: better by the paired test, at 95 %.
    """
    tests = pd.read_csv(folder / "comparisons.csv")
    turned = tests["first"] == "fbank"
    values = ["difference", "low", "high"]
    tests.loc[turned, ["first", "second"]] = tests.loc[turned, ["second", "first"]].to_numpy()
    tests.loc[turned, values] = -tests.loc[turned, ["difference", "high", "low"]].to_numpy()
    tests = tests[tests["second"] == "fbank"].drop_duplicates(["first", "task", "metric"])
    results = pd.read_csv(folder / "results.csv").drop_duplicates(["task", "metric"])
    columns = ["task", "metric", "items", "low_is_good"]
    tests = tests.drop(columns=columns[2:], errors="ignore")
    tests = results[columns].merge(tests, on=["task", "metric"])
    tests["upstream"] = tests["first"]

    def cell(row: "pd.Series[Any]") -> str:
        bold = "**" if (row["high"] < 0 if row["low_is_good"] else row["low"] > 0) else ""
        return f"{bold}{row['difference']:+.1f}{bold} [{row['low']:+.1f}, {row['high']:+.1f}]"

    table = _wide(tests, cell)
    return _markdown(table.rename(columns={"upstream": "difference to FBANK (points)"}))


def _number(value: float, unit: object) -> str:
    """Percent with a digit, a value without unit with three."""
    return f"{value:.1f}" if unit == "%" else f"{value:.3f}"


def _wide(rows: pd.DataFrame, cell: Callable[["pd.Series[Any]"], str]) -> pd.DataFrame:
    """A row per upstream and a column per metric, both in the order of `rows`."""
    arrow = rows["low_is_good"].map({True: "↓", False: "↑"})
    head = rows["task"].str.upper() + " " + rows["metric"] + " " + arrow
    if "items" in rows:
        head += ", n = " + rows["items"].astype(str)
    cells = rows.assign(head=head, cell=rows.apply(cell, axis=1))
    table = cells.pivot(index="upstream", columns="head", values="cell")
    table = table.loc[rows["upstream"].unique(), head.unique()].fillna("")
    if "kind" in rows:  # teachers, students, log-mel features
        kinds = rows.drop_duplicates("upstream").set_index("upstream")
        order = kinds["kind"].map(["teacher", "student", "fbank"].index)
        table.insert(0, "parameters", kinds["parameters"].map(lambda n: f"{n / 1e6:.2f} M"))
        table = table.loc[order.sort_values(kind="stable").index]
    return table.reset_index()


def _markdown(table: pd.DataFrame) -> str:
    lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def draw_overview(folder: Path, student: str, picture: Path) -> None:
    """The README's picture, from the tables of a run."""
    tables = folder / f"dendrogram-{student}.csv", folder / "layers.csv"
    figure = overview(*tables, student)
    style.save(figure, picture)
    picture.with_suffix(".pdf").unlink()


def preset_page(folder: Path) -> str:
    """What a run of a preset found, from the files kept in `folder`."""
    made = json.loads((folder / "made.json").read_text(encoding="utf-8"))
    preset = made["preset"]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(made["versions"].items()))
    command = f"snakemake --cores all --config params={preset} --directory DIR"
    lines = [f"# What {preset} found", "", f"Made by `{command}`", f"with {versions}, and these"]
    lines += ["[params.yaml](params.yaml). Brackets: 95 % bootstrap intervals over test voices."]
    if (folder / "params.yaml").read_bytes() != (ROOT / preset).read_bytes():
        lines += ["", f"**{preset} has changed since this run**: these are results of the preset,"]
        lines += ["and of the sample teachers, of that time."]
    if (folder / "methods.csv").exists():
        lines += ["", "▲ better, ▼ worse than the baseline: the interval of the paired test is"]
        lines += ["without 0. ±: standard deviation over seeds.", "", study_table(folder)]
    lines += ["", (folder / "results.md").read_text(encoding="utf-8").strip(), ""]
    lines += [f"![{p.stem}]({p.name})\n" for p in sorted(folder.glob("*.png"))]
    lines += ["What the figures and this table are drawn from:", ""]
    lines += [f"* [{p.name}]({p.name})" for p in sorted(folder.glob("*.csv"))]
    return "\n".join(lines) + "\n"


def keep_preset(preset: Path, run: Path, folder: Path) -> None:
    """Copy what the run of `preset` in `run` found to `folder`, and write its page."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = [name for name in outputs.figures(load(preset)) if name != "published"]
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
    draw_overview(Path("results/paper"), "skill-wavlm", Path("docs/images/overview"))
    rewrite(Path("README.md"), compact_table(kept))
    rewrite(Path("docs/results.md"), (kept / "results.md").read_text(encoding="utf-8"))
    rewrite(Path("docs/results.md"), floor_table(kept), "floor")
    rewrite(
        Path("docs/calibration.md"),
        calibration_table(read_csv(kept / "skill-wavlm-calibration.csv")),
    )
    figures = Path("docs/benchmarks")
    page = benchmarks_page(figures, Path("benchmarks"))
    (figures / "README.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
