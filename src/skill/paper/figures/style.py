"""One look for all figures, and files whose bytes depend on their content only.

Colours are Okabe and Ito's, which colour-blind readers tell apart; each comes with a marker and a
dash of its own, so that grey print loses nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from skill.utils.files import replacing

INK = "#222222"
FAINT = "#b8b8b8"
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
DASHES: list[Any] = ["-", (0, (5, 2)), (0, (1, 1.3)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), "--", ":"]
SEQUENTIAL = "cividis"  # even in lightness, so that it reads in grey
WIDTH = 3.35  # inches, one column; two are 2 * WIDTH + 0.25
Inches = tuple[float, float]

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.03,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.hashsalt": "skill",
}


@contextmanager
def style() -> Iterator[None]:
    """The look, over matplotlib's defaults and whatever the user's own settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)  # type: ignore[arg-type]
        yield


def look(index: int) -> dict[str, Any]:
    """Colour, marker and dash of series `index`; after seven colours the same with other shapes."""
    lap, number = divmod(index, len(COLOURS))
    other = (number + lap) % len(MARKERS)
    return {"color": COLOURS[number], "marker": MARKERS[other], "linestyle": DASHES[other]}


def grid(
    count: int, most: int, width: Inches, height: Inches, *, sharey: bool = False
) -> tuple[Figure, Any]:
    """A figure of `count` panels, `most` side by side; sizes of a panel, and what comes on top."""
    across = min(most, count)
    down = -(-count // across)
    size = (width[0] * across + width[1], height[0] * down + height[1])
    figure, axes = plt.subplots(down, across, figsize=size, squeeze=False, sharey=sharey)
    for panel in axes.flat[count:]:
        panel.set_visible(False)
    return figure, axes


def legend(figure: Figure, handles: dict[str, Any], columns: int = 3) -> None:
    """One legend below all panels, a handle per label."""
    if handles:
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=min(columns, len(handles)),
        )


def save(figure: Figure, path: Path) -> None:
    """Write `path`.pdf and `path`.png and close the figure; same figure, same bytes."""
    undated = {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None}
    for suffix, metadata in ((".pdf", undated), (".png", {"Software": None})):
        with replacing(path.with_name(path.name + suffix)) as temporary, style():
            figure.savefig(temporary, metadata=metadata)
    plt.close(figure)
