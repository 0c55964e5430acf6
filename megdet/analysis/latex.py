r"""Tables as LaTeX that compiles and fits the page, whatever the cells hold."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from unicodedata import category, normalize

import pandas as pd

from megdet.analysis.table import NOT_RUN, Column, Table, notes_of

LINES_ON_A_PAGE = 40
"""More would be taller than a page of A4 or letter; the rest goes on in a table of its own."""

SENTENCE = 60
"""Characters from which on a column is of text over several lines."""
COLUMN = 40
"""Characters in a line of it, about."""

HEAD = r"""% To be \input into a document with \usepackage{booktabs,graphicx,array}.
% Tables that are wider than the text shrink. Without booktabs all rules are alike:
\providecommand{\toprule}{\hline}\providecommand{\midrule}{\hline}\providecommand{\bottomrule}{\hline}
"""


def latex(tables: Sequence[Table]) -> str:
    r"""`table` environments to \input; they need the packages graphicx and array, and look best with booktabs.

    `\ref{tab:table3}` refers to the first table of that label, `tab:table3-2` to the second.
    """
    counts: Counter[str] = Counter()
    parts = [HEAD]
    for table in tables:
        counts[table.label] += 1
        number = f"-{counts[table.label]}" if counts[table.label] > 1 else ""
        parts += _parts(table, f"tab:{_label(table.label)}{number}" if table.label else "")
    return "\n".join(parts)


def _parts(table: Table, label: str) -> list[str]:
    """A table environment for each page; notes follow the last."""
    texts = table.texts(NOT_RUN)
    shown = texts.map(_tex).mask(table.best(), lambda text: r"\textbf{" + text + "}")
    shown.columns = [_heading(column, place) for place, column in enumerate(table.columns)]
    about = [f"{name}: {note}." for name, note in notes_of(table)] + [table.about, table.legend]
    pages = _pages(texts)
    return [
        _environment(
            table,
            shown.loc[rows].style.hide(axis="index").to_latex(hrules=True, column_format=_alignment(texts)),
            re.sub(r"^Table \d+: ", "", table.title) + (" (continued)" if number else ""),
            label="" if number else label,
            below=" ".join(text for text in about if text) if number == len(pages) - 1 else "",
        )
        for number, rows in enumerate(pages)
    ]


def _pages(texts: pd.DataFrame) -> list[list[int]]:
    """The rows of each page, at least one."""
    pages: list[list[int]] = [[]]
    height = 0
    for row, cells in texts.iterrows():
        lines = max(-(-len(text) // COLUMN) if len(text) > SENTENCE else 1 for text in cells)
        if pages[-1] and height + lines > LINES_ON_A_PAGE:
            pages.append([])
            height = 0
        pages[-1].append(row)
        height += lines
    return pages


def _environment(table: Table, tabular: str, title: str, *, label: str, below: str) -> str:
    return "\n".join(
        [
            f"% {_tex(table.title)}",
            r"\begin{table}[htbp]",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{_tex(f'{title}. Runs: {table.shown}.')}}}"
            + (rf"\label{{{label}}}" if label else "")
            + r"\smallskip",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            tabular.rstrip() + "}",
            *([rf"\par\smallskip{{\raggedright {_tex(below)}\par}}"] if below else []),
            r"\end{table}",
            "",
        ]
    )


def _alignment(texts: pd.DataFrame) -> str:
    """Names to the left, numbers to the right, sentences over several lines."""
    longest = [max(map(len, texts[heading]), default=0) for heading in texts]
    return "".join(
        rf">{{\raggedright\arraybackslash}}p{{{COLUMN}ex}}" if length > SENTENCE else "r" if place else "l"
        for place, length in enumerate(longest)
    )


def _heading(column: Column, place: int) -> str:
    """A column's heading; `(paper)` stands on a second line."""
    if not column.whose:
        return _tex(column.heading)
    name = column.heading.removesuffix(f" ({column.whose})")
    return rf"\shortstack[{'r' if place else 'l'}]{{{_tex(name)}\\{_tex(f'({column.whose})')}}}"


def _label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9:-]+", "-", text).strip("-")


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
    """One character as every LaTeX engine reads it; its code point if LaTeX has no command for it."""
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
