"""A sweep file's table: its rows, in each our runs of it beside the paper's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from megdet.analysis.asked import SEED, matching, usual_values
from megdet.analysis.cells import Cell, Seeds, notes_on, seeds_of, signed
from megdet.analysis.comparable import Group
from megdet.analysis.setting_values import setting_value
from megdet.analysis.sheet import LABEL, SECONDS, Measure, Sheet, SheetRow, read_sheet
from megdet.analysis.table import Column, Kind, Row, Table, mean_of, table_of
from megdet.analysis.tables.recipe import Recipe


def recipe_of(file: Path) -> Recipe:
    """The table of a user's own sweep file. Raises UserError for what it cannot be read as."""
    sheet = read_sheet(file)
    return Recipe(str(file), lambda group: sheet_table(sheet, group), varied=sheet.asked)


def sheet_table(sheet: Sheet, group: Group | None, *, title: str = "", own: Sequence[SheetRow] = ()) -> Table | None:
    """The table for one group of comparable runs; None if no run belongs in it. Without a group, the paper's numbers.

    `own`: rows that the sheet does not have, to follow it.
    """
    columns = columns_of(sheet)
    rows = [*sheet.rows, *own]
    runs_of = _runs_by_row(rows, group)
    if group and not any(len(runs) for runs in runs_of):
        return None
    measured = pd.concat(runs_of)
    # Where there is no column of GPUs, rows on different ones could not be told apart.
    apart = sheet.gpus is None and measured.loc[measured["status"] == "finished", "gpus"].nunique() > 1
    made = [
        _row(sheet, row, runs, apart=apart, place=place)
        for place, (row, runs) in enumerate(zip(rows, runs_of, strict=True))
    ]
    has_paper = any(row.paper for row in sheet.rows)
    shown = "no run yet" if group is None else group.heading if has_paper else group.title
    return table_of(title or sheet.title, shown, columns, made, label=sheet.label)


def columns_of(sheet: Sheet) -> list[Column]:
    """Names, GPUs, then each measure with the paper's number; the first of these with the difference too."""
    columns = [Column(heading, Kind.NAMING) for heading in sheet.names]
    if sheet.gpus:
        columns.append(Column(sheet.gpus, Kind.FACT))
        if any(row.gpus for row in sheet.rows):
            columns.append(Column(sheet.gpus, Kind.PAPER))
    for measure in sheet.measures:
        ours = Column(measure.name, Kind.MEASURED, measure.format, measure.better, measure.unit)
        columns.append(ours)
        if measure in _printed(sheet):
            columns.append(replace(ours, kind=Kind.PAPER, better=None))
            if measure == _printed(sheet)[0]:
                columns.append(Column("difference", Kind.DIFFERENCE, signed(1)))
    return columns


def _printed(sheet: Sheet) -> list[Measure]:
    """What the paper has a number of."""
    return [measure for measure in sheet.measures if any(measure.heading in row.paper for row in sheet.rows)]


def _runs_by_row(rows: Sequence[SheetRow], group: Group | None) -> list[pd.DataFrame]:
    if group is None:
        return [pd.DataFrame(columns=["status", "reason", "gpus"])] * len(rows)
    asked = [row.asked for row in rows if row.asked is not None]
    usual = usual_values(group.frames, asked, [key for key in group.varied if key != SEED])
    ordered = group.runs.sort_values(["seed", "run_id"])
    nothing = ordered.iloc[:0]
    return [nothing if row.asked is None else ordered.loc[matching(group.frames, row.asked, usual)] for row in rows]


def _row(sheet: Sheet, row: SheetRow, runs: pd.DataFrame, *, apart: bool, place: int) -> Row:
    cells: list[Cell] = [row.label if shown == LABEL else _setting(row, shown) for shown in sheet.names.values()]
    if sheet.gpus:
        cells.append(", ".join(map(str, sorted(runs["gpus"].unique()))) or None)
        if any(other.gpus for other in sheet.rows):
            cells.append(row.gpus)
    finished = runs[runs["status"] == "finished"]
    for measure in sheet.measures:
        own = _measured(measure, runs, finished, apart=apart)
        cells.append(own)
        if measure in _printed(sheet):
            theirs = row.paper.get(measure.heading)
            cells.append(theirs)
            if measure == _printed(sheet)[0]:
                ours, printed = mean_of(own), mean_of(theirs)
                cells.append(None if ours is None or printed is None else ours - printed)
    notes = notes_on(runs, shown=len(finished) > 0)
    key = (place,) if place < len(sheet.rows) else tuple((row.asked or {}).items())
    return Row(key, cells, ((row.note,) if row.note else ()) + notes, runs)


def _setting(row: SheetRow, key: str) -> Cell:
    text = (row.asked or {}).get(key)
    return None if text is None else setting_value(text)


def _measured(measure: Measure, runs: pd.DataFrame, finished: pd.DataFrame, *, apart: bool) -> Cell:
    """What the runs of a row have of a number, times by the number of GPUs where these differ or are to be told."""
    values = finished[measure.number].dropna() if measure.number in finished else pd.Series(dtype=float)
    if not measure.is_time:
        return seeds_of(runs, values, name=measure.name)
    values = values / SECONDS[measure.unit]
    by_gpus = {gpus: tuple(times) for gpus, times in values.groupby(finished["gpus"])}
    if len(by_gpus) < 2 and not apart:
        return Seeds(tuple(values))
    return ", ".join(f"{measure.format(times)} ({gpus} GPU{'s' * (gpus > 1)})" for gpus, times in by_gpus.items())
