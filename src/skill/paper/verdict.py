"""Is a run's table what it should be? Expected values with bands, made from several runs.

`presets/expected/NAME.csv` has a row for every upstream, task and metric, `NAME.yaml` beside it the
parameters that it belongs to. A value that leaves its band is no chance: the usual cause is a
processor whose fast kernels are wrong.

A band is the half-width of a prediction interval for one more run (Hahn and Meeker 1991,
"Statistical intervals", section 4.7):

    t_{1 - α/2, ν} · s · √(1 + 1/k),

of k runs on different processors and numbers of threads. s² is the variance between runs of one
upstream, pooled over the upstreams of a metric (ν = U (k - 1)), or that of a mean of H heads with
other seeds, σ²_heads / H, where that is larger: a run that rounds differently trains other heads,
and a few runs may agree by chance. α is 1 % divided by the number of rows, so that a sound run
passes in 99 of 100 cases. No band is narrower than one test item.

Legend: k runs, U upstreams, H seeds of heads.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from skill.config.load import read_yaml
from skill.superb.metrics import METRICS, format_value
from skill.utils.errors import SkillError, known_content
from skill.utils.files import read_csv, replacing, write_csv
from skill.utils.uncertainty import Variance, pooled

COLUMNS = ["task", "metric", "upstream", "value", "band", "runs"]
FOLDER = Path("presets/expected")
RESULTS = Path("results/paper/results.csv")
_KEY = ["task", "metric", "upstream"]
_FALSE_ALARMS = 0.01  # of sound runs
_NAMED = 5  # keys or values that a sentence lists
_MISSING = object()


def expected_rows(runs: Sequence[Sequence[Mapping[str, str]]]) -> list[dict[str, Any]]:
    """The table of expected values from the rows of `results.csv` of several runs.

    Raises:
        SkillError: fewer than two runs, or runs of other upstreams or tasks.
    """
    if len(runs) < 2:
        raise SkillError("bands are made from the variation between runs: give at least two")
    tables = [pd.DataFrame(list(run)).set_index(_KEY) for run in runs]
    for table in tables[1:]:
        if set(table.index) != set(tables[0].index):
            raise SkillError("the runs are not of the same upstreams and tasks")
    values = pd.concat([pd.to_numeric(table["value"]) for table in tables], axis=1)
    confidence = 1 - _FALSE_ALARMS / len(values)
    rows: list[dict[str, Any]] = []
    for _, group in values.groupby(level=["task", "metric"], sort=False):
        of_runs = [table.loc[group.index] for table in tables]
        numbers = group.to_numpy()
        variance = max(pooled(numbers.tolist()), _of_heads(of_runs))
        half = 0.0
        if variance.value > 0:
            quantile = float(stdtrit(variance.freedom, (1 + confidence) / 2))
            half = quantile * (variance.value * (1 + 1 / len(runs))) ** 0.5
        where = group.index.to_frame(index=False).to_dict("records")
        unit = METRICS[str(where[0]["metric"])].unit
        item = (100 if unit else 1) / int(of_runs[0]["items"].iloc[0])
        band = math.ceil(1e4 * max(half, item)) / 1e4
        rows += [
            {**{str(k): v for k, v in key.items()}, "value": mean, "band": band, "runs": len(runs)}
            for key, mean in zip(where, numbers.mean(axis=1), strict=True)
        ]
    return rows


def _of_heads(tables: Sequence[pd.DataFrame]) -> Variance:
    """The variance of a mean of heads, pooled over the upstreams and runs of a metric."""
    heads = pd.concat(tables)[["head_seeds", "head_deviation"]].apply(pd.to_numeric)
    heads = heads[heads["head_seeds"] > 1]
    if heads.empty:
        return Variance(0.0, 0)
    freedom = heads["head_seeds"] - 1
    of_head = float((freedom * heads["head_deviation"] ** 2).sum() / freedom.sum())
    return Variance(of_head / float(heads["head_seeds"].iloc[0]), int(freedom.sum()))


def write_expected(runs: Sequence[Path], params: Path, output: Path) -> None:
    """Write `output` (.csv) from the folders of several runs, and the parameters beside it (.yaml).

    Raises:
        SkillError: as `expected_rows`; a folder has no results, or a file is damaged.
    """
    with known_content(*(run / RESULTS for run in runs)):
        rows = expected_rows([read_csv(run / RESULTS) for run in runs])
    read_yaml(params)
    with replacing(output.with_suffix(".yaml")) as temporary:
        temporary.write_bytes(params.read_bytes())
    write_csv(output, rows, COLUMNS)


def differences(first: object, second: object, path: str = "") -> Iterator[str]:
    """The keys in which two mappings differ, with their paths."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in [*first, *(key for key in second if key not in first)]:
            inner = f"{path}.{key}" if path else str(key)
            yield from differences(first.get(key, _MISSING), second.get(key, _MISSING), inner)
    elif first != second or isinstance(first, bool) != isinstance(second, bool):
        yield path


def find_expected(params: Path, folder: Path) -> tuple[Path | None, list[str]]:
    """The expected table of the parameters that are most like these, and the keys that differ.

    Comments and layout are no difference. Without any table, None and no key.
    """
    content = read_yaml(params)
    candidates = []
    for table in sorted(folder.glob("*.csv")):
        keys = list(differences(content, read_yaml(table.with_suffix(".yaml"))))
        candidates.append((len(keys), table, keys))
    if not candidates:
        return None, []
    _, nearest, keys = min(candidates, key=lambda candidate: candidate[0])
    return nearest, keys


def compared(
    results: Sequence[Mapping[str, str]], expected: Sequence[Mapping[str, str]]
) -> list[dict[str, Any]]:
    """Each expected row with the run's value and whether it is `inside`; NaN where it is missing.

    Raises:
        SkillError: a band or a value of the expected table is no finite number.
    """
    values = {tuple(row[key] for key in _KEY): float(row["value"]) for row in results}
    rows = []
    for row in expected:
        try:
            target, band = float(row["value"]), float(row["band"])
        except (KeyError, ValueError) as error:
            raise SkillError(f"the expected table has a row without numbers: {error}") from None
        if not (np.isfinite(target) and np.isfinite(band) and band >= 0):
            raise SkillError(f"the expected table says {target} ± {band}")
        where = {key: row[key] for key in _KEY}
        value = values.get(tuple(where.values()), math.nan)
        inside = abs(value - target) <= band  # false for NaN
        rows.append({**where, "value": value, "expected": target, "band": band, "inside": inside})
    return rows


def run(params: Path, results: Path = RESULTS, folder: Path = FOLDER) -> None:
    """Print the verdict on `results`, or why there is none for `params`.

    Raises:
        SkillError: a value is outside its band, or a file is missing or damaged.
    """
    table, keys = find_expected(params, folder)
    if table is None:
        print(f"no verdict: {folder} has no expected results")
        return
    if keys:
        named = ", ".join(keys[:_NAMED]) + (", …" if len(keys) > _NAMED else "")
        print(f"no verdict: {params} is not {table.with_suffix('.yaml')}; they differ in {named}")
        return
    with known_content(results):
        rows = compared(read_csv(results), read_csv(table))
    print(_printed(rows))
    outside = [row for row in rows if not row["inside"]]
    if not outside:
        print(f"✓ all {len(rows)} values are within the bands of {table}")
        return
    named = "; ".join(
        f"{row['task'].upper()} {row['metric']} of {row['upstream']} is "
        f"{format_value(row['value'], row['metric'])} instead of "
        f"{format_value(row['expected'], row['metric'])} ± "
        f"{format_value(row['band'], row['metric'])}"
        for row in outside[:_NAMED]
    )
    raise SkillError(
        f"{len(outside)} of {len(rows)} values are outside their bands ({named}"
        f"{'; …' if len(outside) > _NAMED else ''}). Look at the line on the machine under "
        f"{results.with_suffix('.md')}: a processor with wrong kernels is the usual cause, which "
        "`skill check` shows and `precision: float32` in the parameters avoids; values that are "
        "all a little off mean other audio, weights or versions than the expected ones"
    )


def _printed(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table for a terminal."""
    lines = [["task", "metric", "upstream", "value", "expected", "band", ""]]
    for row in rows:
        numbers = [format_value(row[key], row["metric"]) for key in ("value", "expected", "band")]
        mark = "✓" if row["inside"] else "✗"
        lines.append([row["task"], row["metric"], row["upstream"], *numbers, mark])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = (  # names to the left, numbers to the right
        [f"{cell:<{w}}" if n < 3 else f"{cell:>{w}}" for n, (cell, w) in
         enumerate(zip(line, widths, strict=True))] for line in lines
    )  # fmt: skip
    return "\n".join("  ".join(line).rstrip() for line in text)
