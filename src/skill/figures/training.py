"""Pictures of students: how they were trained, what pruning left, what they cost and score.

Each function reads one small table of `skill.paper` and returns a figure.
"""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skill.figures.style import COLOURS, DASHES, MARKERS, WIDTH, style
from skill.files import read_csv
from skill.superb.tasks import METRICS

Rows = list[dict[str, str]]
_MOST = 8  # students in one legend


def _names(rows: Rows, column: str) -> list[str]:
    return list(dict.fromkeys(row[column] for row in rows))


def _line(axes: Axes, rows: Rows, y: str, index: int, label: str = "") -> None:
    points = [(float(r["step"]), float(r[y])) for r in rows if r[y]]
    if points:
        axes.plot(
            *zip(*points, strict=True),
            color=COLOURS[index % len(COLOURS)],
            linestyle=DASHES[index % len(DASHES)],
            label=label or None,
        )


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        columns = min(3, len(labels))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def curves(table: Path) -> Figure:
    """Loss of both stages, and stage 1's sparsity and Lagrange multipliers, over the steps."""
    rows = read_csv(table)
    students = _names(rows, "student")
    with style():
        figure, axes = plt.subplots(2, 2, figsize=(2 * WIDTH + 0.25, 4.4))
        titles = ["Stage 1: loss", "Stage 2: loss", "Stage 1: sparsity", "Stage 1: multipliers"]
        labels = ["distillation loss", "distillation loss", "share of parameters removed", "λ"]
        for panel, title, label in zip(axes.flat, titles, labels, strict=True):
            panel.set(title=title, xlabel="step", ylabel=label)
            panel.grid(True)
        for index, student in enumerate(students):
            own = [r for r in rows if r["student"] == student]
            first = [r for r in own if r["stage"] == "stage1"]
            _line(axes[0, 0], first, "distillation", index, student)
            _line(axes[0, 1], [r for r in own if r["stage"] == "stage2"], "distillation", index)
            _line(axes[1, 0], first, "sparsity", index)
            _line(axes[1, 1], first, "lambda1", index)
            _line(axes[1, 1], first, "lambda2", index)
        goal = [
            (float(r["step"]), float(r["target_sparsity"])) for r in rows if r["target_sparsity"]
        ]
        if goal:
            axes[1, 0].plot(*zip(*sorted(set(goal)), strict=True), color="#999999", lw=0.7)
        axes[1, 1].text(
            0.98, 0.95, "λ₁ and λ₂", transform=axes[1, 1].transAxes, ha="right", va="top"
        )
        _legend(figure, axes[0, 0])
    return figure


def layers(table: Path) -> Figure:
    """Share of channels, heads and feed-forward units that is left, and parameters per block."""
    rows = read_csv(table)
    students = _names(rows, "student")
    titles = {"conv": "Convolution channels", "head": "Attention heads", "ffn": "FFN units"}
    with style():
        figure, axes = plt.subplots(2, 2, figsize=(2 * WIDTH + 0.25, 4.4))
        for index, student in enumerate(students):
            own = [r for r in rows if r["student"] == student]
            look = {
                "color": COLOURS[index % len(COLOURS)],
                "marker": MARKERS[index % len(MARKERS)],
                "linestyle": DASHES[index % len(DASHES)],
            }
            blocks: dict[int, int] = {}
            for panel, unit in zip(axes.flat, titles, strict=False):
                part = [r for r in own if r["unit"] == unit]
                x = [int(r["layer"]) for r in part]
                panel.plot(x, [int(r["left"]) / int(r["of"]) for r in part], label=student, **look)
                if unit != "conv":
                    for r in part:
                        blocks[int(r["layer"])] = blocks.get(int(r["layer"]), 0) + int(
                            r["parameters"]
                        )
            axes[1, 1].plot(list(blocks), [n / 1000 for n in blocks.values()], **look)
        for panel, unit in zip(axes.flat, titles, strict=False):
            where = "convolution" if unit == "conv" else "block"
            panel.set(title=titles[unit], xlabel=where, ylabel="share left", ylim=(-0.05, 1.05))
        axes[1, 1].set(title="Parameters per block", xlabel="block", ylabel="thousand parameters")
        axes[1, 1].set_ylim(bottom=0)
        for panel in axes.flat:
            panel.grid(True)
            panel.xaxis.get_major_locator().set_params(integer=True)
        _legend(figure, axes[0, 0])
    return figure


def size(table: Path) -> Figure:
    """Every upstream's number of parameters against its score, one panel per task and metric."""
    rows = read_csv(table)
    panels = list(dict.fromkeys((r["task"], r["metric"]) for r in rows))
    upstreams = _names(rows, "upstream")
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    with style():
        figure, axes = plt.subplots(
            down, across, figsize=(2.3 * across + 0.3, 2.0 * down + 0.5), squeeze=False
        )
        for panel in axes.flat[len(panels) :]:
            panel.set_visible(False)
        for panel, (task, metric) in zip(axes.flat, panels, strict=False):
            about = METRICS[metric]
            for index, upstream in enumerate(upstreams):
                for r in rows:
                    if (r["upstream"], r["task"], r["metric"]) != (upstream, task, metric):
                        continue
                    value, low, high = (float(r[key]) for key in ("value", "low", "high"))
                    panel.errorbar(
                        int(r["parameters"]) / 1e6,
                        value,
                        yerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
                        color=COLOURS[index % len(COLOURS)],
                        marker=MARKERS[index % len(MARKERS)],
                        linestyle="none",
                        capsize=2,
                        label=upstream if len(upstreams) <= _MOST else None,
                    )
            better = "lower is better" if about.low_is_good else "higher is better"
            unit = f" ({about.unit})" if about.unit else ""
            synthetic = any(r["synthetic"] == "True" for r in rows if r["task"] == task)
            panel.set(
                title=task.upper() + (" (synthetic)" if synthetic else ""),
                xlabel="parameters (million)",
                ylabel=f"{about.title}{unit}\n{better}",
            )
            panel.grid(True)
        _legend(figure, axes.flat[0])
    return figure
