"""Pictures of results: score against size and sparsity, and gains over a reference.

Each function reads one small table of `skill.paper.tables` and returns a figure.
"""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from skill.config.tasks import PROTOCOL
from skill.paper.figures.style import COLOURS, INK, WIDTH, grid, legend, look, style
from skill.paper.figures.training import Rows, names, rows_of
from skill.superb.metrics import METRICS

_COSTS = [
    ("parameters", 1e6, "parameters (million)"),
    ("macs", 1e9, "MACs of 32 utterances (10⁹)"),
    ("real_time_factor", 1.0, "s of computing per s of audio"),
]
_TEACHER_DASHES = [(0, (1, 2)), (0, (4, 2, 1, 2))]


def size(table: Path) -> Figure:
    """Every upstream's score against parameters, MACs and time; one row of panels per task."""
    rows = rows_of(table)
    tasks = _panels(rows)
    looks = _looks(rows)
    with style():
        figure, axes = plt.subplots(
            len(tasks),
            3,
            figsize=(2 * WIDTH + 0.25, 1.55 * len(tasks) + 0.5),
            squeeze=False,
            sharey="row",
            sharex="col",
        )
        for across, (task, metric) in zip(axes, tasks, strict=True):
            here = [r for r in rows if (r["task"], r["metric"]) == (task, metric)]
            for panel, (column, scale, _) in zip(across, _COSTS, strict=True):
                most = max(float(r[column]) for r in rows) / scale
                places = _apart([float(r[column]) / scale for r in here], 0.025 * most)
                for r, place in zip(here, places, strict=True):
                    _point(panel, place, r, looks[r["upstream"]])
                panel.set_xlim(-0.05 * most, 1.08 * most)
                panel.xaxis.set_major_locator(MaxNLocator(4))
                panel.grid(True)
            across[0].set_title(_title(here))
            across[0].set_ylabel(_axis(metric))
        for panel, (_, _, label) in zip(axes[-1], _COSTS, strict=True):
            panel.set_xlabel(label)
        handles = {name: Line2D([], [], **shape) for name, shape in looks.items()}
        legend(figure, handles, columns=4)
    return figure


def _looks(rows: Rows) -> dict[str, dict[str, Any]]:
    """Students in colours, in order of their names; what they are compared with in black."""
    kinds = {r["upstream"]: r["kind"] for r in rows}
    students = sorted(name for name, kind in kinds.items() if kind == "student")
    looks = {name: look(index) for index, name in enumerate(students)}
    teachers = [name for name, kind in kinds.items() if kind == "teacher"]
    for name, marker in zip(teachers, "*dph" * len(teachers), strict=False):
        looks[name] = {"color": INK, "marker": marker, "markersize": 6}
    for name in kinds.keys() - looks.keys():
        looks[name] = {"color": INK, "marker": "x"}
    return {name: shape | {"linestyle": "none"} for name, shape in looks.items()}


def sparsity(table: Path) -> Figure:
    """Score against the share of parameters removed; the whole teachers as level lines."""
    rows = rows_of(table)
    tasks = _panels(rows)
    series = sorted(names([r for r in rows if r["kind"] == "student"], "series"))
    teachers = names([r for r in rows if r["kind"] == "teacher"], "series")
    handles: dict[str, Any] = {}
    with style():
        figure, axes = grid(len(tasks), 3, (2.3, 0.6), (2.0, 0.5))
        for panel, (task, metric) in zip(axes.flat, tasks, strict=False):
            here = [r for r in rows if (r["task"], r["metric"]) == (task, metric)]
            for r in here:
                if r["kind"] == "teacher":
                    dash = _TEACHER_DASHES[teachers.index(r["series"]) % 2]
                    line: dict[str, Any] = {"color": INK, "linestyle": dash, "linewidth": 0.9}
                    panel.axhline(float(r["value"]), **line)
                    handles[r["series"]] = Line2D([], [], **line)
            for index, name in enumerate(series):
                points = [r for r in here if r["series"] == name and r["kind"] == "student"]
                shift = 0.004 * (index - (len(series) - 1) / 2)
                x = [float(r["sparsity"]) + shift for r in points]
                panel.plot(x, [float(r["value"]) for r in points], **look(index))
                for place, r in zip(x, points, strict=True):
                    _point(panel, place, r, look(index))
                handles[name] = Line2D([], [], **look(index))
            panel.set_title(_title(here))
            panel.set_xlabel("share of parameters removed")
            panel.set_ylabel(_axis(metric))
            panel.grid(True)
        legend(figure, handles, columns=axes.shape[1])
    return figure


def probes(table: Path) -> Figure:
    """What each state knows, against its depth: a panel per task, a line per upstream.

    An upstream of one state, such as FBANK, is a level line.
    """
    rows = rows_of(table)
    tasks = _panels(rows)
    looks = _looks(rows)
    dashes = {"teacher": "-", "fbank": ":"}
    kinds = {r["upstream"]: r["kind"] for r in rows}
    lines = {
        name: looks[name] | {"linestyle": dashes.get(kind, look(index)["linestyle"])}
        for index, (name, kind) in enumerate(kinds.items())
    }
    with style():
        figure, axes = grid(len(tasks), 2, (WIDTH, 0), (2.3, 0.5))
        for panel, (task, metric) in zip(axes.flat, tasks, strict=False):
            for name, line in lines.items():
                points = [r for r in rows if (r["task"], r["upstream"]) == (task, name)]
                if len(points) == 1:
                    panel.axhline(float(points[0]["value"]), **(line | {"marker": None}))
                    continue
                depth = [int(r["state"]) / int(r["of"]) for r in points]
                panel.plot(depth, [float(r["value"]) for r in points], **line)
            panel.set_title(PROTOCOL[task].title)
            panel.set_xlabel("depth: state 0 to the last")
            panel.set_ylabel(_axis(metric))
            panel.grid(axis="y")
        legend(figure, {name: Line2D([], [], **line) for name, line in lines.items()}, columns=4)
    return figure


def gains(table: Path) -> Figure:
    """What each student gains or loses beside its reference: bars from zero, with intervals."""
    rows = rows_of(table)
    tasks = _panels(rows)
    students = [(r["reference"], r["student"]) for r in rows]
    places = list(dict.fromkeys(students))
    references = names(rows, "reference")
    with style():
        height = (0.24 * len(places) + 0.75, 0)
        figure, axes = grid(len(tasks), 3, (1.75, 1.9), height, sharey=True)
        for panel, (task, metric) in zip(axes.flat, tasks, strict=False):
            here = [r for r in rows if (r["task"], r["metric"]) == (task, metric)]
            for r in here:
                place = places.index((r["reference"], r["student"]))
                gain, low, high = (float(r[key]) for key in ("gain", "low", "high"))
                sure = low > 0 or high < 0
                colour = COLOURS[0] if gain >= 0 else COLOURS[1]
                panel.barh(
                    place,
                    gain,
                    height=0.62,
                    color=colour if sure else "white",
                    edgecolor=colour,
                )
                panel.plot([low, high], [place, place], color=INK, linewidth=1.0)
            panel.axvline(0, color=INK, linewidth=0.7)
            unit = METRICS[metric].unit and " (points)"
            panel.set_title(f"{_title(here)}, {METRICS[metric].title}", fontsize=7)
            panel.set_xlabel(f"gain{unit}, right is better")
            panel.grid(axis="x")
            panel.tick_params(axis="y", length=0)
            panel.spines["left"].set_visible(False)
        several = len(references) > 1
        seeds = {r["student"]: r["seeds"] for r in rows}
        named = {s: s if len(set(seeds.values())) == 1 else f"{s} ({n})" for s, n in seeds.items()}
        labels = [f"{named[s]}\nagainst {r}" if several else named[s] for r, s in places]
        axes[0, 0].set_yticks(range(len(places)), labels)
        axes[0, 0].invert_yaxis()
        if not several:
            head = f"against {references[0]}; filled: the interval excludes 0"
            figure.suptitle(head, fontsize=8, x=0.01, ha="left")
    return figure


def _apart(places: list[float], gap: float) -> list[float]:
    """The places, those nearer than `gap` to the one on their left spread evenly about their mean.

    Points that cost the same would cover each other.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(places)), key=lambda i: places[i]):
        if groups and places[index] - places[groups[-1][-1]] < gap:
            groups[-1].append(index)
        else:
            groups.append([index])
    apart = list(places)
    for group in groups:
        middle = sum(places[i] for i in group) / len(group)
        for order, index in enumerate(group):
            apart[index] = middle + gap * (order - (len(group) - 1) / 2)
    return apart


def _panels(rows: Rows) -> list[tuple[str, str]]:
    return list(dict.fromkeys((r["task"], r["metric"]) for r in rows))


def _title(rows: Rows) -> str:
    synthetic = any(r["synthetic"] == "True" for r in rows)
    return rows[0]["task"].upper() + (" (synthetic)" if synthetic else "")


def _axis(metric: str) -> str:
    about = METRICS[metric]
    unit = f" ({about.unit})" if about.unit else ""
    return f"{about.title}{unit}\n{'lower' if about.low_is_good else 'higher'} is better"


def _point(axes: Axes, x: float, row: dict[str, str], shape: dict[str, Any]) -> None:
    value, low, high = (float(row[key]) for key in ("value", "low", "high"))
    axes.errorbar(
        x,
        value,
        yerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
        capsize=2,
        elinewidth=0.8,
        **(shape | {"linestyle": "none"}),
    )
