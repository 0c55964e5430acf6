"""A table: a data frame of cells, and columns with their kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import pandas as pd

from megdet.analysis.cells import Cell, Seeds, as_is

OURS = " †"
"""Marks a row that the paper does not have."""
NOT_RUN = "\N{EN DASH}"
LEGEND = (
    "mmAP: COCO AP in percent after the last epoch. Time: training alone. Over several seeds: mean ± standard "
    f"deviation (seeds). failed: training diverged. {NOT_RUN}: not run, or ended as a note says. †: not in the paper. "
    "Bold: the best of its column."
)


class Kind(StrEnum):
    """What a column says."""

    NAMING = "naming"
    """Which row it is."""
    MEASURED = "measured"
    """What our runs gave."""
    FACT = "fact"
    """What our runs were: their GPUs, their commits."""
    PAPER = "paper"
    """What the paper has of it."""
    DIFFERENCE = "difference"
    """Ours less another number."""


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    name: str
    kind: Kind
    format: Callable[[Sequence[float]], str] = as_is
    """A number as text, or several seeds' (`megdet.analysis.cells`)."""
    better: Literal["up", "down"] | None = None
    """Which numbers are better: the best is shown in bold."""
    unit: str = ""
    of: str = ""
    """The second set of runs that it is of, where a table has one (--against)."""
    in_notes: bool = True
    """Whether a note on a row names it by this column; where a row has runs in common with others it should not."""

    @property
    def heading(self) -> str:
        """Name, unit and source: `Time (h) (paper)`. Also the column of the frame."""
        return self.name + "".join(f" ({text})" for text in (self.unit, self.whose) if text)

    @property
    def whose(self) -> str:
        return "paper" if self.kind is Kind.PAPER else self.of

    def text(self, cell: Cell) -> str:
        """The cell as a reader sees it; empty if there is nothing."""
        if isinstance(cell, Seeds):
            return cell.text(self.format)
        if cell is None or cell != cell:
            return ""
        return cell if isinstance(cell, str) else self.format([cell])


@dataclass(frozen=True)
class Row:
    """A row to be put into a table."""

    key: tuple[Any, ...]
    """What makes it the same row in another table of the same kind."""
    cells: Sequence[Cell]
    """In the order of the columns."""
    notes: tuple[str, ...] = ()
    runs: pd.DataFrame | None = None
    """The runs that its cells are made of."""


@dataclass(frozen=True)
class Table:
    """A table for any format."""

    title: str
    shown: str
    """Which runs it shows."""
    columns: tuple[Column, ...]
    frame: pd.DataFrame
    """The cells, by heading; a row's index is its key as text."""
    notes: tuple[tuple[str, ...], ...]
    """Of each row, what its cells do not say."""
    runs: pd.DataFrame
    """The runs behind the cells, with the columns of `RunFrames.runs` and `row`, the row's position."""
    about: str = ""
    """What a reader must know to read it."""
    legend: str = LEGEND
    """What its cells mean; said once below several tables that share it."""
    label: str = ""
    r"""What LaTeX refers to it by: \\ref{tab:LABEL}."""

    def of_kind(self, *kinds: Kind) -> list[Column]:
        """The columns of these kinds, in order."""
        return [column for column in self.columns if column.kind in kinds]

    def texts(self, missing: str = "") -> pd.DataFrame:
        """The cells as a reader sees them."""
        return pd.DataFrame(
            {c.heading: [c.text(cell) or missing for cell in self.frame[c.heading]] for c in self.columns}, dtype=object
        )

    def best(self) -> pd.DataFrame:
        """True where a number is the best of its column, as far as the digits shown tell; false all over where only
        one row has a number."""
        return pd.DataFrame({column.heading: self._best_of(column) for column in self.columns})

    def _best_of(self, column: Column) -> list[bool]:
        means = [mean_of(cell) for cell in self.frame[column.heading]]
        known = [mean for mean in means if mean is not None]
        if column.better is None or len(known) < 2:
            return [False] * len(means)
        best = column.format([max(known) if column.better == "up" else min(known)])
        return [mean is not None and column.format([mean]) == best for mean in means]


def table_of(
    title: str, shown: str, columns: Sequence[Column], rows: Sequence[Row], *, about: str = "", legend: str = LEGEND,
    label: str = "",
) -> Table:  # fmt: skip
    """A table of these rows."""
    frame = pd.DataFrame(
        [list(row.cells) for row in rows], [str(row.key) for row in rows], [c.heading for c in columns], dtype=object
    )
    runs = [row.runs.assign(row=place) for place, row in enumerate(rows) if row.runs is not None]
    return Table(
        title, shown, tuple(columns), frame, tuple(row.notes for row in rows),
        pd.concat(runs) if runs else pd.DataFrame({"row": []}), about, legend, label,
    )  # fmt: skip


def mean_of(cell: Cell) -> float | None:
    """The number of a cell; None where it has none, or words."""
    value = cell.mean if isinstance(cell, Seeds) else cell
    return None if value is None or isinstance(value, str) or value != value else value


def notes_of(table: Table) -> list[tuple[str, str]]:
    """The notes, each with the rows that it concerns; `all runs` if it concerns all."""
    noted: dict[str, list[int]] = {}
    for place, notes in enumerate(table.notes):
        for note in notes:
            noted.setdefault(note, []).append(place)
    ours = sorted(set(table.runs["row"]))

    def names(places: list[int]) -> str:
        if len(places) > 1 and places == ours:
            return "all runs"
        return "; ".join(dict.fromkeys(_name(table, place) for place in places))

    return [(names(places), note) for note, places in noted.items()]


def _name(table: Table, place: int) -> str:
    """The row's name: its label, and the numbers that tell it apart with what they are (`BN size 16`)."""
    cells = [(column, table.frame[column.heading].iloc[place]) for column in table.of_kind(Kind.NAMING)]
    return ", ".join(
        cell if isinstance(cell, str) else f"{column.name} {column.text(cell)}"
        for column, cell in cells
        if column.in_notes and column.text(cell)
    )
