"""A table of texts as Markdown and as a page of HTML."""

from html import escape

import pandas as pd

from skill.utils.text import printable

Cells = list[list[str]]
"""Lines of texts, the first of which is the head."""

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 14px/1.4 "DejaVu Sans", sans-serif; color: #222; margin: 1.5em }}
table {{ border-collapse: collapse; border-top: 2px solid #222; border-bottom: 2px solid #222 }}
th, td {{ padding: 3px 10px; text-align: right; vertical-align: bottom }}
th {{ border-bottom: 1px solid #222 }}
th:first-child, td:first-child {{ text-align: left }}
tr:nth-child(even) td {{ background: #f4f4f4 }}
</style></head><body>
<h1>{title}</h1>
{table}
<p>{note}</p>
</body></html>
"""


def markdown_table(cells: Cells) -> str:
    """A Markdown table without padding, so that one longer cell does not change every line."""
    head, *body = ([_escaped(cell) for cell in line] for line in cells)
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _escaped(cell: str) -> str:
    """What would end a cell or a line, or begin a tag, is escaped."""
    for mark, instead in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("\n", " ")):
        cell = cell.replace(mark, instead)
    return printable(cell)


def markdown(cells: Cells, note: str) -> str:
    """A Markdown table and a note below."""
    return f"{markdown_table(cells)}\n\n{note}\n"


def html(title: str, cells: Cells, note: str) -> str:
    """The same as a page of its own, for the report."""
    head, *body = ([printable(cell) for cell in line] for line in cells)
    table = pd.DataFrame(body, columns=pd.Index(head)).to_html(index=False, border=0)
    return _PAGE.format(title=escape(title), table=table, note=escape(note).replace("\n", "<br>"))
