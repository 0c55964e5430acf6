"""Tables as Markdown, LaTeX, CSV or HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence

from megdet.analysis.latex import latex
from megdet.analysis.page import page
from megdet.analysis.table import NOT_RUN, Table, notes_of
from megdet.errors import printable

FORMULA = ("=", "+", "-", "@", "\t", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What spreadsheets take for the beginning of one; some take the wide forms too."""
NUMBER = r"[+-]\d[\d.,]*( ?[±%†]| [\d.,]+| \(\d+\))*"
"""As tables have it, such as `+1.2 ± 0.3 (3)`. What only begins like one, a spreadsheet may compute."""


def markdown(tables: Sequence[Table]) -> str:
    """GitHub's tables, aligned so that they read well as plain text too."""
    return "\n".join(
        [*(_markdown(table) for table in tables), *(f"{_md_text(legend)}\n" for legend in _legends(tables))]
    )


def csv_text(tables: Sequence[Table]) -> str:
    """One block per table, a blank line between; the first columns say which table and runs, the last has the notes."""
    blocks = []
    for table in tables:
        frame = table.texts()
        frame.insert(0, "table", table.title)
        frame.insert(1, "runs", table.shown)
        frame["note"] = ["; ".join(notes) for notes in table.notes]
        blocks.append(frame.rename(columns=_no_formula).map(_no_formula).to_csv(index=False, lineterminator="\n"))
    return "\n".join(blocks)


def html_page(tables: Sequence[Table]) -> str:
    """A page on its own."""
    return page("megdet: tables", html_tables(tables))


def html_tables(tables: Sequence[Table]) -> str:
    """The tables to be put into a page."""
    legends = (f"<p>{_html_text(legend)}</p>" for legend in _legends(tables))
    return "\n".join([*(_html(table) for table in tables), *legends])


def _markdown(table: Table) -> str:
    cells = table.texts(NOT_RUN).map(_md).mask(table.best(), lambda text: "**" + text + "**")
    lines = [[_md(column.heading) for column in table.columns], *cells.to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [_markdown_line(line, widths) for line in lines]
    rule = "|".join(
        (":" if place == 0 else "-") + width * "-" + (":" if place else "-") for place, width in enumerate(widths)
    )
    notes = [f"- {_md(label)}: {_md(note)}" for label, note in notes_of(table)]
    parts = [f"### {_md(table.title)}", "", f"Runs: {_md(table.shown)}.", "", text[0], f"|{rule}|", *text[1:], ""]
    below = ([*notes, ""] if notes else []) + ([_md_text(table.about), ""] if table.about else [])
    return "\n".join([*parts, *below])


def _markdown_line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]) + " |"


def _md(text: str) -> str:
    r"""Escapes what Markdown would read as a table's border, HTML, code, emphasis or a link, and a terminal as code."""
    return re.sub(r"([\\|<`*]|\](?=\())", r"\\\1", " ".join(map(printable, text.splitlines())))


def _md_text(text: str) -> str:
    """Of our own sentences, with users' words in them: their code may be code, but no tag and no link."""
    return re.sub(r"(<|\](?=\())", r"\\\1", " ".join(map(printable, text.splitlines())))


def _html(table: Table) -> str:
    cells = table.texts(NOT_RUN).map(_html_text)
    cells = cells.mask(table.best(), lambda text: "<strong>" + text + "</strong>").rename(columns=_html_text)
    styled = cells.style.hide(axis="index").set_caption(_html_text(table.title))
    body = styled.to_html(exclude_styles=True).replace("<th >", "<th>").replace("<td >", "<td>").rstrip()
    notes = "".join(f"<p>{_html_text(f'{label}: {note}')}</p>\n" for label, note in notes_of(table))
    return f'<div class="wide">\n{body}\n</div>\n<p>Runs: {_html_text(table.shown)}.</p>\n{notes}' + (
        f"<p>{_html_text(table.about)}</p>\n" if table.about else ""
    )


def _html_text(text: str) -> str:
    return html.escape("\n".join(map(printable, text.split("\n"))))


def _no_formula(text: str) -> str:
    """Puts a quote before text that a spreadsheet would compute; numbers stay as they are."""
    text = text.replace("\r", " ")  # it would end the row
    text = "".join(sign if sign in "\n\t" else printable(sign) for sign in text)
    return f"'{text}" if text[:1] in FORMULA and not re.fullmatch(NUMBER, text) else text


def _legends(tables: Sequence[Table]) -> list[str]:
    """The legend of the cells, each sentence once."""
    return list(dict.fromkeys(table.legend for table in tables if table.legend))


FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {
    "markdown": markdown,
    "latex": latex,
    "csv": csv_text,
    "html": html_page,
}
