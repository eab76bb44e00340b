"""Pictures of students: how they were trained, what pruning left, how well they learned.

Each function reads one small table of `skill.paper.tables` and returns a figure.
"""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from skill.paper.figures.style import INK, SEQUENTIAL, WIDTH, grid, legend, look, style
from skill.utils.errors import SkillError
from skill.utils.files import read_csv

Rows = list[dict[str, str]]
_UNITS = {
    "conv": ("Convolution channels", "convolution"),
    "head": ("Attention heads", "block"),
    "ffn": ("Feed-forward units", "block"),
}


def names(rows: Rows, column: str) -> list[str]:
    """The values of a column, in order of their first row."""
    return list(dict.fromkeys(row[column] for row in rows))


def rows_of(table: Path) -> Rows:
    """The rows of a table.

    Raises:
        SkillError: it has none, so that there is nothing to draw.
    """
    rows = read_csv(table)
    if not rows:
        raise SkillError(f"{table}: has no rows to draw")
    return rows


def curves(table: Path) -> Figure:
    """Loss of both stages, and stage 1's sparsity and Lagrange multipliers, over the steps.

    Seeds of one student share its look.
    """
    rows = rows_of(table)
    bases = sorted(names(rows, "base"))
    titles = ["Stage 1: loss", "Stage 2: loss", "Stage 1: sparsity", "Stage 1: multipliers"]
    labels = ["distillation loss", "distillation loss", "share of parameters removed", "λ"]
    handles: dict[str, Any] = {}
    with style():
        figure, axes = plt.subplots(2, 2, figsize=(2 * WIDTH + 0.25, 4.4))
        for panel, title, label in zip(axes.flat, titles, labels, strict=True):
            panel.set(title=title, xlabel="step", ylabel=label)
            panel.grid(True)
            panel.xaxis.get_major_locator().set_params(integer=True)
        students = names(rows, "student")
        by_student = {name: [r for r in rows if r["student"] == name] for name in students}
        for student, steps in by_student.items():
            base = steps[0]["base"]
            lines = look(bases.index(base)) | {"marker": None}
            first = [r for r in steps if r["stage"] == "stage1"]
            second = [r for r in steps if r["stage"] == "stage2"]
            _line(axes[0, 0], first, "distillation", lines)
            _line(axes[0, 1], second, "distillation", lines)
            _line(axes[1, 0], first, "sparsity", lines)
            for multiplier, label in (("lambda1", "λ₁"), ("lambda2", "λ₂")):
                end = _line(axes[1, 1], first, multiplier, lines)
                if end and student == students[0]:
                    axes[1, 1].annotate(label, end, (4, 0), textcoords="offset points", va="center")
            handles[base] = Line2D([], [], **lines)
        goals = {tuple(_points(steps, "target_sparsity")) for steps in by_student.values()} - {()}
        for goal in sorted(goals):
            axes[1, 0].plot(*zip(*goal, strict=True), color=INK, lw=0.7, zorder=1)
            handles["target sparsity"] = Line2D([], [], color=INK, lw=0.7)
        legend(figure, handles)
    return figure


def _line(axes: Axes, rows: Rows, column: str, lines: dict[str, Any]) -> tuple[float, float] | None:
    """Draw a curve over the steps; its last point, where it has one."""
    points = _points(rows, column)
    if points:
        axes.plot(*zip(*points, strict=True), **lines)
    return points[-1] if points else None


def _points(rows: Rows, column: str) -> list[tuple[float, float]]:
    return [(float(r["step"]), float(r[column])) for r in rows if r[column]]


def layers(table: Path) -> Figure:
    """What is left of each layer: a row per student, shade for the share, a number in each cell."""
    rows = rows_of(table)
    students = names(rows, "student")
    blocks = max(int(r["layer"]) for r in rows)
    height = 0.24 * len(students) + 0.62
    with style():
        figure, axes = plt.subplots(
            4, 1, figsize=(max(2 * WIDTH + 0.25, 0.42 * blocks + 1.8), 4 * height + 0.3)
        )
        for panel, (unit, (title, layer)) in zip(axes, _UNITS.items(), strict=False):
            cells = {
                (r["student"], int(r["layer"])): (float(r["left"]), float(r["of"]))
                for r in rows
                if r["unit"] == unit
            }
            full = {of for _, of in cells.values()}
            panel.set_title(f"{title} left" + (f" (of {full.pop():g})" if len(full) == 1 else ""))
            shares = {key: left / of for key, (left, of) in cells.items()}
            texts = {key: f"{round(left, 1):g}" for key, (left, _) in cells.items()}
            image = _cells(panel, students, shares, texts, layer)
        totals: dict[tuple[str, int], float] = {}
        for r in rows:
            if r["unit"] != "conv":
                key = (r["student"], int(r["layer"]))
                totals[key] = totals.get(key, 0.0) + float(r["parameters"])
        most = max(totals.values())
        scale, thousands = (1e6, "million") if most >= 2e6 else (1e3, "thousand")
        axes[3].set_title(f"Parameters of each block ({thousands})")
        texts = {key: f"{value / scale:.3g}" for key, value in totals.items()}
        _cells(axes[3], students, {k: v / most for k, v in totals.items()}, texts, "block")
        bar = figure.colorbar(image, ax=list(axes[:3]), aspect=30, pad=0.01, shrink=0.9)
        bar.set_label("share left")
        bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


def _cells(
    axes: Axes,
    students: list[str],
    shares: dict[tuple[str, int], float],
    texts: dict[tuple[str, int], str],
    layer: str,
) -> Any:
    """A heat map of shares, students × layers, with a number in every cell."""
    count = max(number for _, number in shares)
    values = [[shares.get((s, n), float("nan")) for n in range(1, count + 1)] for s in students]
    image = axes.imshow(values, cmap=SEQUENTIAL, vmin=0.0, vmax=1.0, aspect="auto")
    for (student, number), text in texts.items():
        light = shares[student, number] > 0.55
        axes.text(
            number - 1,
            students.index(student),
            text,
            ha="center",
            va="center",
            fontsize=6,
            color=INK if light else "white",
        )
    axes.set_yticks(range(len(students)), students)
    axes.set_xticks(range(count), [str(number) for number in range(1, count + 1)])
    axes.set_xlabel(layer)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def regression(table: Path) -> Figure:
    """Variance of each teacher layer that the student does not explain, a panel per teacher.

    A filled marker is a layer that was in a target, a hollow one a layer that was in none. Where
    sparsities were swept, each has a panel, and students without one are in all panels.
    """
    rows = rows_of(table)
    series = sorted(names(rows, "series"))
    panels = [
        (teacher, sparsity)
        for teacher in names(rows, "teacher")
        for sparsity in sorted(
            {r["sparsity"] for r in rows if r["teacher"] == teacher and r["sparsity"]}
        )
        or [""]
    ]
    handles: dict[str, Any] = {}
    with style():
        width = (WIDTH + 0.1, 0.6 if len(panels) == 1 else 0)
        figure, axes = grid(len(panels), 2, width, (2.3, 0.5), sharey=True)
        for panel, (teacher, sparsity) in zip(axes.flat, panels, strict=False):
            here = [r for r in rows if r["teacher"] == teacher and r["sparsity"] in ("", sparsity)]
            students = names(here, "student")
            for place, student in enumerate(students):
                points = [r for r in here if r["student"] == student]
                label = points[0]["series"]
                lines = look(series.index(label))
                shift = 0.12 * (place - (len(students) - 1) / 2)
                _regression_panel(panel, points, lines, shift)
                handles[label] = Line2D([], [], **lines)
            many = len({s for t, s in panels if t == teacher}) > 1
            panel.set_title(f"Layers of {teacher}" + (f", sparsity {sparsity}" if many else ""))
            panel.set_xlabel("teacher layer")
            panel.set_xticks(sorted({int(r["layer"]) for r in here}))
            panel.grid(axis="y")
        axes[0, 0].set_ylim(0, 1.05 * max(float(r["high"]) for r in rows))
        for panel in axes[:, 0]:
            panel.set_ylabel("variance not explained\n(lower is better)")
        point: dict[str, Any] = {"linestyle": "none", "marker": "o", "color": INK}
        handles["in a target"] = Line2D([], [], **point)
        handles["in no target"] = Line2D([], [], mfc="white", **point)
        legend(figure, handles, columns=4)
    return figure


def _regression_panel(axes: Axes, rows: Rows, lines: dict[str, Any], shift: float) -> None:
    x = [int(r["layer"]) + shift for r in rows]
    y = [float(r["error"]) for r in rows]
    low = [max(0.0, v - float(r["low"])) for v, r in zip(y, rows, strict=True)]
    high = [max(0.0, float(r["high"]) - v) for v, r in zip(y, rows, strict=True)]
    axes.errorbar(x, y, yerr=[low, high], fmt="none", ecolor=lines["color"], elinewidth=0.8)
    axes.plot(x, y, **(lines | {"marker": None, "linewidth": 1.0}))
    for filled in (True, False):
        some = [i for i, r in enumerate(rows) if bool(r["target"]) == filled]
        axes.plot(
            [x[i] for i in some],
            [y[i] for i in some],
            linestyle="none",
            marker=lines["marker"],
            color=lines["color"],
            mfc=lines["color"] if filled else "white",
        )
