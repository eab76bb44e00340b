"""The published models, and students of this run that have a score of the same scale."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from skill.paper.figures.style import COLOURS, INK, WIDTH, legend, style
from skill.paper.figures.training import Rows, rows_of

_KINDS: dict[str, dict[str, Any]] = {
    "published, 960 h": {"color": COLOURS[0], "marker": "o", "mfc": "white"},
    "published, 100 h": {"color": COLOURS[4], "marker": "^", "mfc": "white"},
    "this run": {"color": COLOURS[1], "marker": "s"},
}


def published(table: Path) -> Figure:
    """SUPERB score of the published models against parameters and MACs; numbers name them.

    Teachers are level lines. Students of this run have filled points, where they have a score of
    the same scale.
    """
    rows = rows_of(table)
    looks = {kind: shape | {"linestyle": "none"} for kind, shape in _KINDS.items()}
    students = [(n, r) for n, r in enumerate(rows, start=1) if _kind(r) != "teacher"]
    teachers = [r for r in rows if _kind(r) == "teacher"]
    scores = [float(r["score"]) for r in rows]
    with style():
        figure, (parameters, macs, key) = plt.subplots(
            1, 3, figsize=(2 * WIDTH + 0.25, 4.2), width_ratios=[1, 1, 0.66]
        )
        for panel, column, label, unit in (
            (parameters, "million_parameters", "parameters (million)", " M"),
            (macs, "giga_macs", "multiply-accumulates (10⁹)", " · 10⁹"),
        ):
            known = [(n, r) for n, r in students if r[column]]
            points = [(float(r[column]), float(r["score"])) for _, r in known]
            for (_, r), point in zip(known, points, strict=True):
                panel.plot(*point, **looks[_kind(r)])
            panel.margins(x=0.12)
            panel.set_ylim(min(scores) - 20, max(scores) + 30)
            _number(panel, points, [n for n, _ in known])
            for r in (r for r in teachers if r[column]):
                panel.axhline(float(r["score"]), color=INK, linewidth=0.8, linestyle="--", zorder=1)
                panel.annotate(
                    f"{r['model']}: {float(r[column]):.4g}{unit}",
                    (0.98, float(r["score"])),
                    (0, 2),
                    xycoords=("axes fraction", "data"),
                    textcoords="offset points",
                    ha="right",
                    fontsize=6,
                )
            panel.set_xlabel(label)
            panel.grid(True)
        parameters.set_ylabel("SUPERB score (higher is better)")
        parameters.set_title("Size")
        macs.set_title("Operations, where published")
        _key(key, rows)
        kinds = [kind for kind in looks if any(_kind(r) == kind for _, r in students)]
        handles: dict[str, Any] = {kind: Line2D([], [], **looks[kind]) for kind in kinds}
        handles["published teacher, not compressed"] = Line2D(
            [], [], color=INK, lw=0.8, linestyle="--"
        )
        legend(figure, handles, columns=4)
    return figure


def _number(axes: Axes, points: list[tuple[float, float]], numbers: list[int]) -> None:
    """A number at each point, on the side where it is farthest from all points and numbers."""
    low, high = axes.get_xlim(), axes.get_ylim()
    width, height = 165.0, 215.0  # of a panel, in printer's points, about
    occupied = [
        (width * (x - low[0]) / (low[1] - low[0]), height * (y - high[0]) / (high[1] - high[0]))
        for x, y in points
    ]
    for index, number in enumerate(numbers):
        x, y = occupied[index]
        others = occupied[:index] + occupied[index + 1 :]
        free = {
            (dx, dy): min((max(abs(x + dx - a), abs(y + dy - b)) for a, b in others), default=99.0)
            for dx, dy in ((7, 0), (-7, 0), (0, 7), (0, -7), (6, 5), (6, -5), (-6, 5), (-6, -5))
        }
        offset = max(free, key=lambda place: min(free[place], 8.0))
        occupied.append((x + offset[0], y + offset[1]))
        axes.annotate(
            str(number),
            points[index],
            offset,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=5.5,
        )


def _kind(row: dict[str, str]) -> str:
    if row["origin"] != "published":
        return "this run"
    return f"published, {row['hours']} h" if row["hours"] else "teacher"


def _key(axes: Axes, rows: Rows) -> None:
    """The numbered names, in order of score."""
    axes.axis("off")
    for number, r in enumerate(rows, start=1):
        hours = f" ({r['hours']} h)" if r["hours"] == "100" else ""
        text = f"{number:>2}  {r['model']}{hours}"
        axes.text(0, 1 - (number - 1) / max(22, len(rows)), text, fontsize=6, va="top")
