"""Pictures: each module has functions that read one small table and return a figure."""

from pathlib import Path

from skill.utils.errors import SkillError


def draw(name: str, table: Path, pdf: Path, png: Path) -> None:
    """The verb `figure`: draw the table of the figure `name` as PDF and PNG.

    Raises:
        SkillError: no such figure.
    """
    from skill.paper.figures import published, results, similarity, style, training

    figures = {
        "similarity": similarity.matrix,
        "dendrogram": similarity.groups,
        "stability": similarity.stability,
        "criterion": similarity.criterion,
        "calibration": similarity.calibration,
        "curves": training.curves,
        "layers": training.layers,
        "regression": training.regression,
        "probes": results.probes,
        "size": results.size,
        "sparsity": results.sparsity,
        "methods": results.gains,
        "ablation": results.gains,
        "published": published.published,
    }
    kind = name.partition("-")[0]
    if kind not in figures:
        raise SkillError(f"figure {name}: there is no such figure")
    if pdf.with_suffix("") != png.with_suffix(""):
        raise SkillError(f"figure {name}: {pdf} and {png} differ in more than their ending")
    style.save(figures[kind](table), pdf.parent / pdf.stem)
