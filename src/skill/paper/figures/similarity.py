"""Pictures of layers: groups, their number, their stability, and the study of calibration audio.

Each function reads one small table that a verb of `skill.analysis` wrote and returns a figure.

Axes: L states.
"""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from skill.paper.figures.style import COLOURS, DASHES, FAINT, INK, MARKERS, SEQUENTIAL, WIDTH, style
from skill.utils.errors import SkillError
from skill.utils.files import read_csv

Rows = list[dict[str, str]]


def matrix(table: Path) -> Figure:
    """Heat map of CKA between states, in order of depth (table of the verb `similarity`)."""
    rows, names = _square(table, ["state"])
    values = _values(rows, names)
    with style():
        figure, axes = plt.subplots(figsize=_square_size(len(names)), layout="compressed")
        image = heat_map(axes, values, _short(names))
        _separate_models(axes, names)
        colour_bar(figure, image, axes, "CKA")
        axes.set_title(_title("Similarity of layers", names))
    return figure


def groups(table: Path) -> Figure:
    """Heat map in the order of the dendrogram beside it, with the borders of the groups."""
    merges, values, labels, short = dendrogram_of(table)
    names = [row["state"] for row in read_csv(table)]
    with style():
        width, height = _square_size(len(names))
        figure, (tree, axes) = plt.subplots(
            1,
            2,
            figsize=(width + 1.2, height),
            width_ratios=[1.2, width - 1.0],
            sharey=True,
            layout="compressed",
        )
        image = heat_map(axes, values, short)
        axes.tick_params(labelleft=True)
        cluster_borders(axes, labels)
        colour_bar(figure, image, axes, "CKA")
        dendrogram_tree(tree, merges, labels)
        count = len({label for label in labels if label})
        axes.set_title(_title(f"{count} groups of layers", names))
    return figure


def dendrogram_of(
    table: Path,
) -> tuple[list[tuple[int, int, float]], NDArray[np.float64], list[str], list[str]]:
    """Merges (left, right, height), CKA [L, L], clusters [L] and short names [L] of the states."""
    rows, names = _square(table, ["state", "cluster", "left", "right", "height"])
    merges = [
        (int(row["left"]), int(row["right"]), float(row["height"])) for row in rows if row["height"]
    ]
    return merges, _values(rows, names), [row["cluster"] for row in rows], _short(names)


def criterion(table: Path) -> Figure:
    """Silhouette, and stability where the table has it, against the number of groups."""
    rows = _rows(table, ["clusters", "silhouette", "height", "chosen"])
    counts = [int(row["clusters"]) for row in rows]
    lines = [("silhouette", "silhouette"), ("height", "height of the merge")]
    if "rand" in rows[0]:
        lines.append(("rand", "adjusted Rand index\nbetween resamples"))
    with style():
        figure, panels = plt.subplots(
            len(lines), 1, figsize=(WIDTH, 1.25 * len(lines) + 0.35), sharex=True, squeeze=False
        )
        for index, (axes, (column, label)) in enumerate(zip(panels[:, 0], lines, strict=True)):
            values = [float(row[column]) for row in rows]
            if column == "rand":
                low, high = ([float(row[f"rand_{end}"]) for row in rows] for end in ("low", "high"))
                axes.fill_between(counts, low, high, color=COLOURS[index], alpha=0.18, linewidth=0)
            axes.plot(counts, values, color=COLOURS[index], marker=MARKERS[index])
            for row, count, value in zip(rows, counts, values, strict=True):
                if row["chosen"] == "1":
                    axes.axvline(count, color=INK, linewidth=0.8, linestyle=":")
                    axes.plot([count], [value], marker="o", markersize=9, mfc="none", color=INK)
            axes.set_ylabel(label)
            axes.grid(axis="y")
            axes.margins(y=0.15)
        panels[-1, 0].set_xlabel("number of groups (dotted: chosen)")
        panels[-1, 0].set_xticks(counts)
    return figure


def stability(table: Path) -> Figure:
    """How often two layers share a group over resamples, with the borders of the groups."""
    rows, names = _square(table, ["state", "cluster"])
    labels = [row["cluster"] for row in rows]
    values = _values(rows, names)
    order = sorted(
        range(len(rows)),
        key=lambda row: (labels.index(labels[row]), row) if labels[row] else (-1, row),
    )
    names, labels = [names[row] for row in order], [labels[row] for row in order]
    with style():
        figure, axes = plt.subplots(figsize=_square_size(len(names)), layout="compressed")
        image = heat_map(axes, values[np.ix_(order, order)], _short(names), low=0.0)
        cluster_borders(axes, labels)
        colour_bar(figure, image, axes, "share of resamples")
        axes.set_title(_title("Layers that share a group", names))
    return figure


def calibration(table: Path) -> Figure:
    """How the groups settle with more calibration audio, and how far linkages and kernels agree."""
    columns = ["kernel", "linkage", "seconds", "cka_error", "rand_all", "rand_default"]
    rows = _rows(table, columns)
    kernels = list(dict.fromkeys(row["kernel"] for row in rows))
    linkages = list(dict.fromkeys(row["linkage"] for row in rows))
    all_seconds = max(float(row["seconds"]) for row in rows)
    with style():
        figure, (error, rand, agree) = plt.subplots(
            1, 3, figsize=(2 * WIDTH + 0.9, 2.4), width_ratios=[1, 1.25, 1.05]
        )
        for index, kernel in enumerate(kernels):
            some = [r for r in rows if r["kernel"] == kernel and r["linkage"] == linkages[0]]
            some = [r for r in some if float(r["seconds"]) < all_seconds]
            _curve(error, some, "cka_error", index, kernel)
        error.set_ylabel("mean error of CKA")
        error.set_ylim(bottom=0)
        error.set_title("Similarity")
        for index, linkage in enumerate(linkages):
            some = [r for r in rows if r["kernel"] == kernels[0] and r["linkage"] == linkage]
            some = [r for r in some if float(r["seconds"]) < all_seconds]
            _curve(rand, some, "rand_all", index, linkage)
        rand.set_ylabel("adjusted Rand index")
        rand.set_title(f"Groups against all {all_seconds:.0f} s, {kernels[0]}")
        rand.axhline(1.0, color=FAINT, linewidth=0.8, zorder=0)
        for axes in (error, rand):
            axes.set_xlabel("calibration audio (s)")
            axes.set_xscale("log")
            ticks = sorted({float(r["seconds"]) for r in rows} - {all_seconds})
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
            axes.grid(axis="y")
            axes.legend(loc="best")
        at_all_seconds = [row for row in rows if float(row["seconds"]) == all_seconds]
        for place, last in enumerate(reversed(at_all_seconds)):
            which = kernels.index(last["kernel"])
            value = float(last["rand_default"])
            agree.plot([0, value], [place, place], color=FAINT, linewidth=1, zorder=1)
            agree.plot([value], [place], color=COLOURS[which], marker=MARKERS[which])
        agree.set_yticks(
            range(len(at_all_seconds)),
            [f"{r['linkage']}, {r['kernel']}" for r in reversed(at_all_seconds)],
        )
        agree.set_xlim(min(0.0, *(float(r["rand_default"]) for r in at_all_seconds)) - 0.02, 1.06)
        agree.set_xlabel("adjusted Rand index")
        agree.set_title("All audio, against the default")
    return figure


def _curve(axes: Axes, rows: Rows, column: str, index: int, label: str) -> None:
    axes.plot(
        [float(row["seconds"]) for row in rows],
        [float(row[column]) for row in rows],
        color=COLOURS[index],
        marker=MARKERS[index],
        linestyle=DASHES[index],
        label=label,
    )


def _rows(table: Path, columns: list[str]) -> Rows:
    rows = read_csv(table)
    if not rows or any(column not in rows[0] for column in columns):
        raise SkillError(f"{table}: lacks a row or one of the columns {', '.join(columns)}")
    return rows


def _square(table: Path, columns: list[str]) -> tuple[Rows, list[str]]:
    rows = _rows(table, columns)
    return rows, [row["state"] for row in rows]


def _values(rows: Rows, names: list[str]) -> NDArray[np.float64]:
    return np.array([[float(row[name]) for name in names] for row in rows])


def _square_size(count: int) -> tuple[float, float]:
    side = max(2.3, 0.17 * count)
    return side + 1.05, side + 0.75


def _short(names: list[str]) -> list[str]:
    """Layer numbers where there is one model, model and layer where there are several."""
    one = len({name.rpartition(":")[0] for name in names}) == 1
    return [name.rpartition(":")[2] if one else name.replace(":", " ") for name in names]


def _title(text: str, names: list[str]) -> str:
    models = list(dict.fromkeys(name.rpartition(":")[0] for name in names))
    return f"{text}\n{', '.join(models)}"


def heat_map(
    axes: Axes, values: NDArray[np.float64], labels: list[str], low: float | None = None
) -> AxesImage:
    """A heat map of CKA with the states' labels on both axes."""
    image = axes.imshow(
        values, cmap=SEQUENTIAL, vmin=values.min() if low is None else low, vmax=1.0, aspect="equal"
    )
    crowded = max(len(label) for label in labels) > 3
    axes.set_xticks(range(len(labels)), labels, rotation=90 if crowded else 0)
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if not crowded:
        axes.set_xlabel("layer")
    return image


def colour_bar(figure: Figure, image: AxesImage, axes: Axes, label: str) -> None:
    """The scale beside a heat map."""
    bar = figure.colorbar(image, ax=axes, shrink=0.7, aspect=25, pad=0.02)
    bar.set_label(label)
    bar.outline.set_visible(False)  # type: ignore[operator]


def _separate_models(axes: Axes, names: list[str]) -> None:
    models = [name.rpartition(":")[0] for name in names]
    for row in range(1, len(models)):
        if models[row] != models[row - 1]:
            axes.axhline(row - 0.5, color="white", linewidth=1.5)
            axes.axvline(row - 0.5, color="white", linewidth=1.5)


def cluster_borders(axes: Axes, labels: list[str]) -> None:
    """A white and black frame around each run of rows of one group: seen on every shade."""
    start = 0
    for row in range(1, len(labels) + 1):
        if row == len(labels) or labels[row] != labels[start]:
            if labels[start]:
                box: dict[str, Any] = {"xy": (start - 0.5, start - 0.5), "fill": False}
                side = row - start
                for colour, width in (("white", 3.0), (INK, 1.2)):
                    axes.add_patch(
                        plt.Rectangle(
                            width=side, height=side, color=colour, lw=width, clip_on=False, **box
                        )
                    )
            start = row


def dendrogram_tree(axes: Axes, merges: list[tuple[int, int, float]], labels: list[str]) -> None:
    """Branches from the leaves (right) to the root; merges above the cut are dashed and grey."""
    leaves = len(merges) + 1
    offset = len(labels) - leaves
    places: dict[int, tuple[float, float]] = {leaf: (leaf + offset, 0.0) for leaf in range(leaves)}
    group: dict[int, str | None] = {leaf: labels[leaf + offset] for leaf in range(leaves)}
    for step, (left, right, height) in enumerate(merges):
        (y1, x1), (y2, x2) = places[left], places[right]
        same = group[left] == group[right] and group[left] is not None
        axes.plot(
            [x1, height, height, x2],
            [y1, y1, y2, y2],
            color=INK if same else "#8a8a8a",
            linestyle="-" if same else (0, (3, 1.5)),
            linewidth=1.2 if same else 0.9,
        )
        places[leaves + step] = ((y1 + y2) / 2, height)
        group[leaves + step] = group[left] if same else None
    axes.invert_xaxis()
    axes.set_xlabel("height")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, labelleft=False)
