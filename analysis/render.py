"""A table as Markdown, LaTeX, CSV or HTML."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable, Sequence

from analysis.tables import LEGEND, NOT_RUN, Row, Table


def markdown(tables: Sequence[Table]) -> str:
    """GitHub's tables, aligned so that they read well as plain text too."""
    return "\n".join([*(_markdown(table) for table in tables), f"{LEGEND}\n"])


def latex(tables: Sequence[Table]) -> str:
    r"""`table` environments to \input; no package is needed."""
    return "\n".join([*(_latex(table) for table in tables), f"% {_tex(LEGEND)}\n"])


def csv_text(tables: Sequence[Table]) -> str:
    """One block per table, a blank line between; the first column says which runs, the last has the notes."""
    out = io.StringIO()
    for place, table in enumerate(tables):
        if place:
            out.write("\n")
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["table", "runs", *table.columns, "note"])
        for row in table.rows:
            writer.writerow([table.title, table.runs, *(cell or "" for cell in row.cells), row.note])
    return out.getvalue()


def html_page(tables: Sequence[Table]) -> str:
    """A page on its own."""
    return page("megdet: tables", html_tables(tables))


def html_tables(tables: Sequence[Table], *, legend: bool = True) -> str:
    """The tables to be put into a page; `legend` is for those of results."""
    return "\n".join([*(_html(table) for table in tables), *([f"<p>{html.escape(LEGEND)}</p>"] if legend else [])])


def page(title: str, body: str) -> str:
    """A page of HTML on its own: nothing in it is loaded from elsewhere."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{html.escape(title)}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #222; }}
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
    notes = [f"- {label}: {note}" for label, note in _notes(table)]
    parts = [f"### {table.title}", "", f"Runs: {table.runs}.", "", text[0], f"|{rule}|", *text[1:], ""]
    below = ([*notes, ""] if notes else []) + ([table.about, ""] if table.about else [])
    return "\n".join([*parts, *below])


def _markdown_line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]) + " |"


def _latex(table: Table) -> str:
    def line(cells: Sequence[str | None]) -> str:
        return " & ".join(_tex(cell or NOT_RUN) for cell in cells) + r" \\"

    notes = " ".join(f"{label}: {note}." for label, note in _notes(table))
    caption = f"{table.title.rpartition(': ')[2]}. Runs: {table.runs}. {f'{notes} {table.about}'.strip()}".strip()
    return "\n".join(
        [
            f"% {_tex(table.title)}",
            r"\begin{table}",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
            r"\hline",
            line(table.columns),
            r"\hline",
            *(line(row.cells) for row in table.rows),
            r"\hline",
            r"\end{tabular}",
            rf"\caption{{{_tex(caption)}}}",
            r"\end{table}",
            "",
        ]
    )


_TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "†": r"$\dagger$", NOT_RUN: "--",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
}  # fmt: skip


def _tex(text: str) -> str:
    text = "".join(_TEX.get(character, character) for character in text)
    return re.sub(r"^-(?=\d)", "$-$", text)  # a negative number, not a hyphen


def _html(table: Table) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(line([cell or NOT_RUN for cell in row.cells], "td") for row in table.rows)
    notes = "".join(f"<p>{html.escape(f'{label}: {note}')}</p>\n" for label, note in _notes(table))
    return (
        f'<div class="wide">\n<table>\n<caption>{html.escape(table.title)}</caption>\n'
        f"<thead>{line(table.columns, 'th')}</thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>\n<p>Runs: {html.escape(table.runs)}.</p>\n{notes}"
        + (f"<p>{html.escape(table.about)}</p>\n" if table.about else "")
    )


def _notes(table: Table) -> list[tuple[str, str]]:
    """What the notes say and of which rows; a note that all rows with runs share is given once."""
    noted: dict[str, list[Row]] = {}
    for row in table.rows:
        for note in row.note.split("; ") if row.note else ():
            noted.setdefault(note, []).append(row)
    ours = [row for row in table.rows if row.runs]

    def names(rows: list[Row]) -> str:
        if len(rows) > 1 and rows == ours:
            return "all runs"
        return "; ".join(_name(table, row) for row in rows)

    return [(names(rows), note) for note, rows in noted.items()]


def _name(table: Table, row: Row) -> str:
    named = dict(zip(table.columns, row.cells, strict=True))
    epoch = f"epoch {named['Epoch']}, " if "Epoch" in named else ""
    label = (named["Batch Size"] if "Epoch" in named else row.cells[0]) or ""
    return f"{epoch}{label}" + (f", BN size {named['BN size']}" if "BN size" in named else "")


FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {
    "markdown": markdown,
    "latex": latex,
    "csv": csv_text,
    "html": html_page,
}
