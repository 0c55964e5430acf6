"""A table as text: what its cells, rows and notes say, whichever table it is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from megdet.analysis.runs import RunRecord

OURS = " †"
"""Marks a row that the paper does not have."""
NOT_RUN = "\N{EN DASH}"
LEGEND = (
    "mmAP: COCO AP in percent after the last epoch. Time: training alone. Over several seeds: mean ± standard "
    f"deviation (seeds). failed: training diverged. {NOT_RUN}: not run, or ended as a note says. †: not in the paper."
)

NAMING = (
    "Claim", "Where", "name", "run", "Epoch", "Batch Size", "Mini-Batch size", "Batch size", "BN size", "statistics",
    "module",
)  # fmt: skip
"""The columns that say which row it is."""

Cell = str | None
"""None: nothing there (not run, or not given)."""


@dataclass(frozen=True)
class Row:
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()
    key: tuple[object, ...] = ()
    """What makes it the same row in another table of the same kind."""
    runs: tuple[RunRecord, ...] = ()
    """The runs that its cells are made of."""
    mmAP: float | None = None
    """In percent, over its runs; None where it shows none."""


@dataclass(frozen=True)
class Table:
    """A table as text, for any format."""

    title: str
    runs: str
    """Which runs it shows."""
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    about: str = ""
    """What a reader must know to read it."""
    legend: str = LEGEND
    """What its cells mean."""


def mean_text(values: Sequence[float], digits: int = 1) -> str:
    """Over several seeds: mean ± sample standard deviation (how many)."""
    spread = f" ± {stdev(values):.{digits}f} ({len(values)})" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{spread}"


def difference_text(value: float, digits: int = 1) -> str:
    """With its sign, if anything is left of it."""
    text = f"{value:+.{digits}f}"
    return text if float(text) else text[1:]


def cell_of(runs: Sequence[RunRecord], values: Sequence[float], digits: int = 1) -> Cell:
    """What the runs of a row say: the values of those that gave one, else why there is none."""
    diverged = sum(run.state == "diverged" for run in runs)
    if values:
        text = mean_text(values, digits)
        return text + (f"; {diverged} of {diverged + len(values)} failed" if diverged else "")
    if diverged:
        return "failed" if diverged == 1 else f"failed ({diverged} of {diverged})"
    states = {run.state for run in runs}
    return "running" if "running" in states else "no mmAP" if "finished" in states else None


def notes_on(runs: Sequence[RunRecord], finished: Sequence[RunRecord]) -> tuple[str, ...]:
    """What a row's cells do not say of its runs, of which `finished` gave its values: the states of those without."""
    shown = bool(finished) or any(run.state in ("finished", "diverged") for run in runs)
    in_cell = ("new", "finished", "diverged", *(() if shown else ("running",)))
    counts = Counter(_state_text(run) for run in runs if run.state not in in_cell)
    if not counts:
        return ()
    if shown or any(run.state == "running" for run in runs):
        return ("further seeds " + ", ".join(f"{text}: {count}" for text, count in counts.items()),)
    return (", ".join(text if count == 1 else f"{text}: {count}" for text, count in counts.items()),)


def _state_text(run: RunRecord) -> str:
    # An error says nothing about training: it must not read as the paper's `failed`.
    state = "error" if run.state == "failed" else run.state
    return f"{state} ({run.reason})" if run.reason and state != "running" else state


def hours_text(hours: float) -> str:
    """As in the paper from an hour on, with three digits below."""
    return f"{hours:.1f}" if hours >= 1 else f"{hours:.3g}"


def mean_hours_text(hours: Sequence[float]) -> str:
    """Over several seeds as mmAP is, with the digits of `hours_text`."""
    mean = fmean(hours)
    if len(hours) == 1 or mean == 0:
        return hours_text(mean)
    return mean_text(hours, digits=1 if mean >= 1 else 2 - math.floor(math.log10(mean)))


def notes_of(table: Table) -> list[tuple[str, str]]:
    """What the notes say, each after the rows that it is of; those that all rows with runs share are of `all runs`."""
    noted: dict[str, list[Row]] = {}
    for row in table.rows:
        for note in row.notes:
            noted.setdefault(note, []).append(row)
    ours = [row for row in table.rows if row.runs]

    def names(rows: list[Row]) -> str:
        if len(rows) > 1 and rows == ours:
            return "all runs"
        return "; ".join(dict.fromkeys(_name(table, row) for row in rows))

    return [(names(rows), note) for note, rows in noted.items()]


def _name(table: Table, row: Row) -> str:
    """The row's name; runs that have a row for each of several epochs are named once, a claim without its place."""
    naming = [column for column in NAMING if column not in ("Epoch", "Where")]
    named = [(column, cell) for column, cell in zip(table.columns, row.cells, strict=True) if column in naming and cell]
    return ", ".join(f"BN size {cell}" if column == "BN size" else cell for column, cell in named)
