"""A table as Markdown, LaTeX, CSV or HTML."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable, Sequence

from megdet.analysis.latex import latex
from megdet.analysis.tables import NOT_RUN, Table, notes_of


def markdown(tables: Sequence[Table]) -> str:
    """GitHub's tables, aligned so that they read well as plain text too."""
    return "\n".join([*(_markdown(table) for table in tables), *(f"{legend}\n" for legend in _legends(tables))])


def csv_text(tables: Sequence[Table]) -> str:
    """One block per table, a blank line between; the first column says which runs, the last has the notes."""
    out = io.StringIO()
    for place, table in enumerate(tables):
        if place:
            out.write("\n")
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["table", "runs", *table.columns, "note"])
        for row in table.rows:
            writer.writerow([table.title, table.runs, *(cell or "" for cell in row.cells), "; ".join(row.notes)])
    return out.getvalue()


def html_page(tables: Sequence[Table]) -> str:
    """A page on its own."""
    return page("megdet: tables", html_tables(tables))


def html_tables(tables: Sequence[Table]) -> str:
    """The tables to be put into a page."""
    legends = (f"<p>{html.escape(legend)}</p>" for legend in _legends(tables))
    return "\n".join([*(_html(table) for table in tables), *legends])


def page(title: str, body: str) -> str:
    """A page of HTML on its own: nothing in it is loaded from elsewhere."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{html.escape(title)}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 92rem; padding: 0 1rem; color: #222; }}
h2 {{ border-bottom: 1px solid #ccc; margin-top: 2.5rem; padding-bottom: .2rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; font-weight: 600; padding-bottom: .4rem; }}
th, td {{ padding: .25rem .6rem; text-align: right; white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; }}
thead th {{ border-bottom: 1.5px solid #222; }}
tbody tr:nth-child(even) {{ background: #f4f4f4; }}
p {{ color: #555; font-size: .9em; }}
figure {{ margin: 1.5rem 0; text-align: center; }}
figure svg {{ height: auto; max-width: 100%; }}
pre {{ background: #f4f4f4; overflow-x: auto; padding: .6rem; font-size: .85em; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def _markdown(table: Table) -> str:
    lines = [table.columns, *([cell or NOT_RUN for cell in row.cells] for row in table.rows)]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    widths = [max(len(line[place]) for line in cells) for place in range(len(table.columns))]
    text = [_markdown_line(line, widths) for line in cells]
    rule = "|".join(
        (":" if place == 0 else "-") + width * "-" + (":" if place else "-") for place, width in enumerate(widths)
    )
    notes = [f"- {label}: {note}" for label, note in notes_of(table)]
    parts = [f"### {table.title}", "", f"Runs: {table.runs}.", "", text[0], f"|{rule}|", *text[1:], ""]
    below = ([*notes, ""] if notes else []) + ([table.about, ""] if table.about else [])
    return "\n".join([*parts, *below])


def _markdown_line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]) + " |"


def _html(table: Table) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(line([cell or NOT_RUN for cell in row.cells], "td") for row in table.rows)
    notes = "".join(f"<p>{html.escape(f'{label}: {note}')}</p>\n" for label, note in notes_of(table))
    return (
        f'<div class="wide">\n<table>\n<caption>{html.escape(table.title)}</caption>\n'
        f"<thead>{line(table.columns, 'th')}</thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>\n<p>Runs: {html.escape(table.runs)}.</p>\n{notes}"
        + (f"<p>{html.escape(table.about)}</p>\n" if table.about else "")
    )


def _legends(tables: Sequence[Table]) -> list[str]:
    """What the cells mean, each said once."""
    return list(dict.fromkeys(table.legend for table in tables if table.legend))


FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {
    "markdown": markdown,
    "latex": latex,
    "csv": csv_text,
    "html": html_page,
}
