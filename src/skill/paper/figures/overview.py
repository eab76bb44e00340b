"""The README's picture: layers that are alike, their clusters, and what pruning leaves of them."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from skill.paper.figures import similarity
from skill.paper.figures.style import COLOURS, FAINT, INK, style
from skill.utils.errors import SkillError
from skill.utils.files import read_csv


def overview(clusters: Path, layers: Path, student: str) -> Figure:
    """Dendrogram, CKA with the clusters' borders, and the parameters left in each block.

    Args:
        clusters: the table of the figure `dendrogram` of `student`.
        layers: the table of the figure `layers`, with a row per student, unit and layer.

    Raises:
        SkillError: `layers` has no row of `student`.
    """
    rows = [r for r in read_csv(layers) if r["student"] == student and r["unit"] != "conv"]
    if not rows:
        raise SkillError(f"{layers}: no row of {student}")
    left: dict[int, float] = {}
    for row in rows:
        left[int(row["layer"])] = left.get(int(row["layer"]), 0.0) + float(row["parameters"]) / 1e3
    merges, values, labels, names = similarity.dendrogram_of(clusters)
    with style():
        figure, (tree, heat, bars) = plt.subplots(
            1, 3, figsize=(8.6, 3.1), width_ratios=[1.0, 2.6, 3.2], layout="constrained"
        )
        heat.sharey(tree)
        image = similarity.heat_map(heat, values, names)
        heat.set_title("CKA of the teacher's layers,\nclusters framed")
        similarity.cluster_borders(heat, labels)
        similarity.colour_bar(figure, image, heat, "CKA")
        similarity.dendrogram_tree(tree, merges, labels)
        cluster_of = dict(zip(names, labels, strict=True))
        order = list(dict.fromkeys(label for label in labels if label))
        for block, parameters in sorted(left.items()):
            label = cluster_of.get(str(block), "")
            colour = COLOURS[order.index(label) % len(COLOURS)] if label else FAINT
            bars.bar(block, parameters, color=colour, width=0.8)
            bars.text(block, parameters, f"{parameters:.0f}", ha="center", va="bottom", fontsize=6,
                      color=INK)  # fmt: skip
        bars.set_xticks(sorted(left))
        bars.set_xlabel("block (colour: cluster of its output)")
        bars.set_ylabel("parameters left, thousand")
        bars.set_title(f"What pruning leaves\n{student}")
        bars.grid(axis="y")
    return figure
