"""The small table behind every figure, and the table of results.

What is computed here is arranging and averaging only; nothing is drawn, so that a colour changes no
number. Results of several seeds are averaged, with their standard deviation.
"""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from skill.errors import SkillError
from skill.files import read_csv, read_header, read_json, replacing, write_csv
from skill.params import PaperJob
from skill.superb.sanity import violations
from skill.superb.tasks import METRICS, PROTOCOL

Row = dict[str, Any]
_CURVE = (
    *("distillation", "validation_loss", "sparsity", "target_sparsity", "lambda1", "lambda2"),
    *("gradient_norm", "audio_per_second"),
)


def run(name: str, job: PaperJob, inputs: Sequence[Path], output: Path) -> None:
    """The verb `paper`: write the table `name`; `results` also has a text beside it (Markdown).

    Raises:
        SkillError: no such table, or an input that is missing or damaged.
    """
    kind = name.partition("-")[0]
    if kind in ("similarity", "dendrogram"):
        with replacing(output) as temporary:
            shutil.copyfile(inputs[0], temporary)
    elif kind == "results":
        rows = results(read_csv(inputs[0]))
        write_csv(output, rows, list(rows[0]))
        with replacing(output.with_suffix(".md")) as temporary:
            temporary.write_text(markdown(rows), encoding="utf-8")
    elif kind == "comparisons":
        from skill.superb.table import comparisons

        students = [name for name, about in job.upstreams.items() if about.kind == "student"]
        columns = [*("task", "metric", "first", "second", "difference", "low", "high", "p_value")]
        write_csv(output, comparisons(inputs[0].parents[1], students, job.bootstrap), columns)
    elif kind in ("curves", "curve"):
        write_csv(output, curves(inputs), ["student", "stage", "step", "update", *_CURVE])
    elif kind == "layers":
        write_csv(output, layers(inputs), ["student", "unit", "layer", "left", "of", "parameters"])
    elif kind == "size":
        columns = ["upstream", "kind", "method", "parameters", "task", "metric", "value", "low"]
        columns += ["high", "low_is_good", "synthetic"]
        rows = [{key: row[key] for key in columns} for row in read_csv(inputs[0])]
        write_csv(output, rows, columns)
    else:
        raise SkillError(f"paper {name}: there is no such table")


def results(scores: Sequence[Row]) -> list[Row]:
    """One row per upstream, task and metric; students that differ in their seed are one upstream.

    `value` is the mean over seeds, `deviation` their standard deviation (empty for one seed), `low`
    and `high` the means of the bootstrap intervals' ends.
    """
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in scores:
        groups.setdefault((row["base"], row["task"], row["metric"]), []).append(row)
    rows = []
    for (base, task, metric), members in groups.items():
        values = [float(member["value"]) for member in members]
        rows.append(
            {
                "upstream": base,
                **{key: members[0][key] for key in ("kind", "method", "teachers", "sparsity")},
                "parameters": round(mean(float(member["parameters"]) for member in members)),
                "task": task,
                "metric": metric,
                "value": mean(values),
                "deviation": stdev(values) if len(values) > 1 else "",
                "low": mean(float(member["low"]) for member in members),
                "high": mean(float(member["high"]) for member in members),
                "seeds": len(members),
                **{key: members[0][key] for key in ("items", "unit", "low_is_good", "synthetic")},
            }
        )
    return rows


def markdown(rows: Sequence[Row]) -> str:
    """The rows of `results` as a table of upstreams × metrics, teachers first, then students."""
    kinds = ["teacher", "student", "fbank"]
    upstreams = sorted({r["upstream"]: kinds.index(r["kind"]) for r in rows}.items(), key=_second)
    order = {task: index for index, task in enumerate(PROTOCOL)}
    columns = sorted({(order[r["task"]], r["task"], r["metric"]) for r in rows})
    cells = {(r["upstream"], r["task"], r["metric"]): r for r in rows}
    head = ["upstream", "parameters"]
    for _, task, metric in columns:
        row = next(r for r in rows if (r["task"], r["metric"]) == (task, metric))
        arrow = "↓" if METRICS[metric].low_is_good else "↑"
        marked = " (synthetic)" if row["synthetic"] == "True" else ""
        unit = f" {row['unit']}" if row["unit"] else ""
        head.append(f"{task.upper()}{marked} {metric}{unit} {arrow}, n = {row['items']}")
    lines = [head, ["---"] * len(head)]
    for name, _ in upstreams:
        first = next(r for r in rows if r["upstream"] == name)
        line = [name, f"{first['parameters'] / 1e6:.2f} M"]
        line += [_cell(cells.get((name, task, metric))) for _, task, metric in columns]
        lines.append(line)
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    several = any(r["seeds"] > 1 for r in rows)
    note = "In brackets: 95 % bootstrap interval over test items" + (
        "; ±: standard deviation over seeds." if several else "."
    )
    broken = "".join(f"\n* {line}" for line in violations(rows))
    if broken:
        note += (
            "\n\nFBANK < student ≤ teacher is expected on content and speaker tasks, but:\n"
            + broken
        )
    return f"{table}\n\n{note}\n"


def _second(item: tuple[str, int]) -> int:
    return item[1]


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    spread = f" ± {row['deviation']:.2f}" if row["deviation"] != "" else ""
    return f"{row['value']:.2f}{spread} [{row['low']:.2f}, {row['high']:.2f}]"


def curves(files: Iterable[Path]) -> list[Row]:
    """The curves of `results/stage1/NAME.csv` and `results/stage2/NAME.csv`, one below the other.

    `step` counts within a stage, `update` goes on from stage 1 to stage 2.
    """
    rows: list[Row] = []
    before: dict[str, float] = {}
    for file in files:
        done = before.get(file.stem, 0.0)
        for row in read_csv(file):
            update = done + float(row["step"])
            before[file.stem] = update
            about = {"student": file.stem, "stage": file.parent.name, "step": row["step"]}
            rows.append(about | {"update": update} | {key: row.get(key, "") for key in _CURVE})
    return rows


def layers(files: Sequence[Path]) -> list[Row]:
    """What pruning left: per student, unit and layer the number left, of how many, parameters.

    `files` are pairs of a stage-1 summary and its student. Layer numbers count from 1.
    """
    rows: list[Row] = []
    for summary, student in zip(files[::2], files[1::2], strict=True):
        config = read_header(student)["config"]
        teacher = read_json(summary)["teacher"]
        width, per_head = config["width"], config["width"] // config["total_heads"]
        channels = [1, *config["conv_channels"]]
        left = {
            "conv": config["conv_channels"],
            "head": [len(heads) for heads in config["heads"]],
            "ffn": config["ffn"],
        }
        full = {"conv": teacher["conv_channels"], "head": teacher["heads"], "ffn": teacher["ffn"]}
        for unit, counts in left.items():
            for layer, count in enumerate(counts, start=1):
                parameters = {
                    "conv": channels[layer - 1] * count * config["conv_kernels"][layer - 1]
                    if unit == "conv"
                    else 0,
                    "head": 4 * count * per_head * width + 3 * count * per_head + width,
                    "ffn": 2 * count * width + count + width,
                }[unit]
                rows.append(
                    {
                        "student": student.stem, "unit": unit, "layer": layer, "left": count,
                        "of": full[unit][layer - 1], "parameters": parameters,
                    }
                )  # fmt: skip
    return rows
