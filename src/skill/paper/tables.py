"""The small table behind every figure, and the tables of results.

What is computed here is arranging and averaging only; nothing is drawn, so that a colour changes no
number. Results of several seeds are averaged, with their standard deviation.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from skill.config.jobs import PaperJob
from skill.paper import figure_data, markup, results_table
from skill.paper.results_table import Row
from skill.utils.errors import SkillError
from skill.utils.files import read_csv, read_json, replacing, write_csv

_TABLES: dict[str, tuple[list[str], Callable[[Sequence[Path], PaperJob], list[Row]]]] = {
    "curves": (figure_data.CURVES, figure_data.curves),
    "layers": (figure_data.LAYERS, figure_data.layers),
    "regression": (figure_data.REGRESSION, figure_data.regression),
    "size": (figure_data.SIZE, figure_data.size),
    "probes": (figure_data.PROBES, figure_data.probes),
    "sparsity": (figure_data.SPARSITY, figure_data.sparsity),
    "methods": (figure_data.GAINS, lambda files, job: figure_data.gains(files[0], job.baselines)),
    "ablation": (figure_data.GAINS, lambda files, job: figure_data.gains(files[0], job.references)),
    "published": (figure_data.PUBLISHED, figure_data.published),
}


def run(name: str, job: PaperJob, inputs: Sequence[Path], output: Path) -> None:
    """The verb `paper`: write the table `name`, a figure's kind and what it is of after a hyphen.

    `results` and `table1` also have a text (Markdown) and a page (HTML) beside them. `results`
    takes the scores, the comparisons, and the JSON files of stages and tasks, which say what
    machine made them.

    Raises:
        SkillError: no such table, or an input that is missing or damaged.
    """
    kind = name.partition("-")[0]
    if kind in ("similarity", "dendrogram"):
        with replacing(output) as temporary:
            shutil.copyfile(inputs[0], temporary)
    elif kind == "results":
        rows = results_table.results(read_csv(inputs[0]))
        write_csv(output, rows, list(rows[0]))
        tests = read_csv(inputs[1])
        note = results_table.note(rows, tests, machines(inputs[2:]))
        absent = results_table.undecided(rows, tests)
        shown = [row for row in rows if (row["task"], row["metric"]) not in absent]
        _write_beside(output, "Results", results_table.cells(shown or rows), note)
    elif kind == "table1":
        rows = results_table.table1(read_csv(inputs[0]), read_csv(inputs[1]))
        write_csv(output, rows, results_table.TABLE1)
        _write_beside(
            output, "Table 1", results_table.table1_cells(rows), results_table.TABLE1_NOTE
        )
    elif kind == "comparisons":
        from skill.superb.scores import comparisons

        items = [path for path in inputs if path.suffix == ".csv"]
        compared: dict[str, dict[int, str]] = {}
        for name, upstream in job.upstreams.items():
            compared.setdefault(upstream.base or name, {})[upstream.seed or 0] = name
        rows = comparisons(items, compared, job.bootstrap)
        write_csv(output, rows, figure_data.COMPARISONS)
    elif kind in _TABLES:
        columns, rows_of = _TABLES[kind]
        write_csv(output, rows_of(inputs, job), columns)
    else:
        raise SkillError(f"paper {name}: there is no such table")


def machines(artefacts: Sequence[Path]) -> list[dict[str, Any]]:
    """The machines that the JSON files of stages and tasks were made on; older ones do not say."""
    stamps = (read_json(path).get("provenance", {}) for path in artefacts)
    return [stamp["machine"] for stamp in stamps if "machine" in stamp]


def _write_beside(table: Path, title: str, cells: list[list[str]], note: str) -> None:
    for ending, text in (
        (".md", markup.markdown(cells, note)),
        (".html", markup.html(title, cells, note)),
    ):
        with replacing(table.with_suffix(ending)) as temporary:
            temporary.write_text(text, encoding="utf-8")
