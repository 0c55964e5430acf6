"""A sweep file's table: its rows, in each our runs of it beside the paper's numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from megdet.analysis.asked import runs_of_rows
from megdet.analysis.cells import Cell, Seeds, notes_on, seeds_of, signed
from megdet.analysis.comparable import Group
from megdet.analysis.hardware import devices_text, hardware_of
from megdet.analysis.setting_values import NOT_SET, setting_value
from megdet.analysis.table import Column, Kind, Row, Table, mean_of, table_of
from megdet.analysis.table_spec import LABEL, SECONDS, Measure, RowSpec, TableSpec, read_spec
from megdet.analysis.tables.recipe import Recipe
from megdet.errors import UserError

Fill = Callable[[RowSpec, pd.DataFrame], Cell]
"""A row's cell, from what the row is and its runs."""


def recipe_of(file: Path) -> Recipe:
    """The table of a user's own sweep file. Raises UserError for what it cannot be read as."""
    spec = read_spec(file)
    counts = Counter(column.heading for column in _columns(spec, apart=False))
    if twice := [heading for heading, count in counts.items() if count > 1]:
        raise UserError(f"{file}: two columns are called {twice[0]}; give one of them another name")
    return Recipe(str(file), lambda group: spec_table(spec, group), varied=spec.asked)


def spec_table(spec: TableSpec, group: Group | None, *, title: str = "", own: Sequence[RowSpec] = ()) -> Table | None:
    """The table for one group of comparable runs; None if no run belongs in it. Without a group, the paper's numbers.

    `own`: rows that are not in the file, to follow its own.
    """
    rows = [*spec.rows, *own]
    nothing = pd.DataFrame(columns=["status", "reason", "gpus", "device"])
    asked = [row.asked for row in rows]
    implied = [key for row in rows for key in row.implied]
    runs_of = runs_of_rows(group.frames, asked, group.varied, implied) if group else [nothing] * len(rows)
    if group and not any(len(runs) for runs in runs_of):
        return None
    finished = pd.concat([runs[runs["status"] == "finished"] for runs in runs_of])
    hardware = hardware_of(finished[~finished.index.duplicated()])
    runs_of = [runs.assign(hardware=hardware.reindex(runs.index)) for runs in runs_of]
    # Where there is no column of GPUs, rows on different ones could not be told apart; nor could devices.
    apart = hardware.nunique() > 1 and (spec.gpus is None or finished["device"].nunique() > 1)
    columns = _columns(spec, apart=apart)
    made = []
    for place, (row, runs) in enumerate(zip(rows, runs_of, strict=True)):
        key = (place,) if place < len(spec.rows) else tuple((row.asked or {}).values())
        notes = notes_on(runs, shown=bool((runs["status"] == "finished").any()))
        cells = [fill(row, runs) for fill in columns.values()]
        made.append(Row(key, cells, ((row.note,) if row.note else ()) + notes, runs))
    has_paper = any(row.paper for row in spec.rows)
    shown = "no run yet" if group is None else group.heading if has_paper else group.title
    if any(measure.is_time for measure in spec.measures) and (devices := devices_text(finished)):
        shown = f"{shown}; {devices}"
    return table_of(title or spec.title, shown, list(columns), made, label=spec.label)


def _columns(spec: TableSpec, *, apart: bool) -> dict[Column, Fill]:
    """Names, GPUs, then each measure with the paper's number; the first of these with the difference too."""
    columns: dict[Column, Fill] = {
        Column(heading, Kind.NAMING): partial(_named, shown=shown) for heading, shown in spec.names.items()
    }
    if spec.gpus:
        columns[Column(spec.gpus, Kind.FACT)] = lambda row, runs: ", ".join(map(str, sorted(set(runs["gpus"]))))
        if any(row.gpus for row in spec.rows):
            columns[Column(spec.gpus, Kind.PAPER)] = lambda row, runs: row.gpus
    compared = False
    for measure in spec.measures:
        ours = Column(measure.name, Kind.MEASURED, measure.format, measure.better, measure.unit)
        columns[ours] = partial(_measured, measure=measure, apart=apart)
        if any(measure.heading in row.paper for row in spec.rows):
            columns[replace(ours, kind=Kind.PAPER, better=None)] = partial(_printed, measure=measure)
            if not compared:
                columns[Column("difference", Kind.DIFFERENCE, signed(measure.format))] = partial(
                    _difference, measure=measure
                )
            compared = True
    return columns


def _named(row: RowSpec, runs: pd.DataFrame, *, shown: str) -> Cell:
    if shown == LABEL:
        return row.label
    text = (row.asked or {}).get(shown, "")
    return NOT_SET if text is None else setting_value(text)


def _printed(row: RowSpec, runs: pd.DataFrame, *, measure: Measure) -> Cell:
    return row.paper.get(measure.heading)


def _measured(row: RowSpec, runs: pd.DataFrame, *, measure: Measure, apart: bool) -> Cell:
    """What a row's runs have of a number; times by what they were trained on where that differs, or `apart`."""
    if runs.empty:
        return None
    values = runs.loc[runs["status"] == "finished"].get(measure.number, pd.Series(dtype=float)).dropna()
    if not measure.is_time:
        return seeds_of(runs, values, name=measure.name)
    seconds = runs.loc[values.index].sort_values("gpus", kind="stable").groupby("hardware", sort=False)[measure.number]
    by_hardware = {hardware: list(times / SECONDS[measure.unit]) for hardware, times in seconds}
    if len(by_hardware) < 2 and not apart:
        return Seeds(tuple(values / SECONDS[measure.unit]))
    return ", ".join(f"{measure.format(times)} ({hardware})" for hardware, times in by_hardware.items())


def _difference(row: RowSpec, runs: pd.DataFrame, *, measure: Measure) -> Cell:
    ours = mean_of(_measured(row, runs, measure=measure, apart=False))
    theirs = mean_of(_printed(row, runs, measure=measure))
    return None if ours is None or theirs is None else ours - theirs
