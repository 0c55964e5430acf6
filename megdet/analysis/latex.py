r"""Tables as LaTeX that compiles and fits the page, whatever is in their cells."""

from __future__ import annotations

import re
from collections.abc import Sequence
from unicodedata import category, normalize

from megdet.analysis.tables import NOT_RUN, Row, Table, notes_of

LINES_ON_A_PAGE = 40
"""More would be taller than a page of A4 or letter; the rest goes on in a table of its own."""

SENTENCE = 60
"""Characters from which on a column is of text over several lines."""
COLUMN = 40
"""Characters in a line of it, about."""

HEAD = r"""% To be \input into a document with \usepackage{graphicx,array}: tables that are wider than the text shrink.
"""


def latex(tables: Sequence[Table]) -> str:
    r"""`table` environments to \input; they need the packages graphicx and array."""
    return "\n".join([HEAD, *(part for table in tables for part in _parts(table))])


def _parts(table: Table) -> list[str]:
    """A table environment for each page of it; what is to be said of its rows is below the last."""
    pages: list[list[Row]] = [[]]
    height = 0
    for row in table.rows:
        lines = max(-(-len(cell or "") // COLUMN) if len(cell or "") > SENTENCE else 1 for cell in row.cells)
        if pages[-1] and height + lines > LINES_ON_A_PAGE:
            pages.append([])
            height = 0
        pages[-1].append(row)
        height += lines
    about = [f"{label}: {note}." for label, note in notes_of(table)] + [table.about, table.legend]
    below = " ".join(text for text in about if text)
    parts = []
    for number, rows in enumerate(pages, start=1):
        title = re.sub(r"^Table \d+: ", "", table.title) + (" (continued)" if number > 1 else "")
        parts.append(
            _environment(table, [_line(row.cells) for row in rows], title, below if number == len(pages) else "")
        )
    return parts


def _environment(table: Table, lines: Sequence[str], title: str, below: str) -> str:
    return "\n".join(
        [
            f"% {_tex(table.title)}",
            r"\begin{table}[htbp]",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{_tex(f'{title}. Runs: {table.runs}.')}}}\smallskip",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{_alignment(table)}}}",
            r"\hline",
            _heading(table.columns),
            r"\hline",
            *lines,
            r"\hline",
            r"\end{tabular}}",
            *([rf"\par\smallskip{{\raggedright {_tex(below)}\par}}"] if below else []),
            r"\end{table}",
            "",
        ]
    )


def _alignment(table: Table) -> str:
    """Names to the left, numbers to the right, sentences over several lines."""
    kinds = "l" + "r" * (len(table.columns) - 1)
    longest = [max((len(row.cells[place] or "") for row in table.rows), default=0) for place in range(len(kinds))]
    return "".join(
        rf">{{\raggedright\arraybackslash}}p{{{COLUMN}ex}}" if length > SENTENCE else kind
        for kind, length in zip(kinds, longest, strict=True)
    )


def _heading(columns: Sequence[str]) -> str:
    """The names of the columns; what is in brackets, as `(paper)`, on a line of its own."""
    cells = []
    for place, column in enumerate(columns):
        name, bracket, rest = column.rpartition(" (")
        side = "l" if place == 0 else "r"
        apart = bracket and rest != "h)"  # a unit stays with its name
        cells.append(rf"\shortstack[{side}]{{{_tex(name)}\\{_tex('(' + rest)}}}" if apart else _tex(column))
    return r"\rule{0pt}{2.5ex}" + " & ".join(cells) + r" \\"


def _line(cells: Sequence[str | None]) -> str:
    return " & ".join(_tex(cell or NOT_RUN) for cell in cells) + r" \\"


_TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#",
    "_": r"\_\allowbreak{}", "/": r"/\allowbreak{}", "=": r"=\allowbreak{}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "±": r"$\pm$", "†": r"$\dagger$", "→": r"$\to$", NOT_RUN: "--", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "\n": " ", "\t": " ",
}  # fmt: skip
_ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u030a": "r", "\u0327": "c"}


def _tex(text: str) -> str:
    # In front, LaTeX would read a bracket as an option of the line before.
    text = re.sub(r"^(?=\[)", "{}", "".join(_character(character) for character in text))
    return re.sub(r"^-(?=\d)", "$-$", text)  # a negative number, not a hyphen


def _character(character: str) -> str:
    """One character in what every LaTeX engine reads; its code point where there is no such thing."""
    if character in _TEX:
        return _TEX[character]
    if character.isascii():
        return character if character.isprintable() else ""
    letter, marks = (decomposed := normalize("NFD", character))[0], decomposed[1:]
    if letter.isascii() and marks in _ACCENTS:
        return rf"\{_ACCENTS[marks]}{{{letter}}}"
    if character == "ß":
        return r"\ss{}"
    return "" if category(character) == "Cf" else f"U+{ord(character):04X}"
