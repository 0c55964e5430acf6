"""`--against`: a second set of runs beside the first in the same tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd

from megdet.analysis.cells import Cell, Seeds, signed
from megdet.analysis.commits import commits_text
from megdet.analysis.comparable import Group
from megdet.analysis.frames import read_runs
from megdet.analysis.run_frames import RunFrames
from megdet.analysis.setting_values import NOT_SET
from megdet.analysis.table import Column, Kind, Table
from megdet.analysis.wanted import Wanted, having, select, there
from megdet.errors import UserError
from megdet.settings.paths import fault_of_path
from megdet.settings.rules import shown
from megdet.tracking.uri import without_password


def second_set(name: str, frames: RunFrames, *, wanted: Wanted, epochs: Sequence[str]) -> tuple[RunFrames, RunFrames]:
    """What `--against` names: the first set of runs without it, and the second, of both those that are `wanted`.

    `name` is an experiment of `frames`, a tag or setting of theirs as KEY=VALUE (`precision=bf16`, `commit=c0ffee`), a
    runs folder or an MLflow URI. What is `wanted` of a key that `name` sets for the second set (experiment, `sweep=`)
    applies to the first alone. Raises UserError if `name` is none of these, or if a set has no matching run.
    """
    if instead := fault_of_path(name):
        raise UserError(f"--against {shown(name)}: use {instead}")
    key, equals, value = name.partition("=")
    named = having(frames, key, value) if equals else pd.Series(False, frames.runs.index)
    named |= frames.runs["experiment"] == name
    said = key if equals else "experiment"
    first, second = frames.where(~named), frames.where(named)
    if not named.any():
        if "://" not in name and not (name and Path(name).is_dir()):
            raise UserError(f"--against {name}: no such folder, experiment or KEY=VALUE; {_there(name, frames)}")
        first, second, said = frames, read_runs(name, epochs=epochs), ""
    if first.runs.empty:
        raise UserError(f"--against {name}: all runs are of that set; name another one, or a folder")
    try:
        second = select(second, **{key: value for key, value in wanted.items() if key != said})
    except UserError as error:
        raise UserError(f"--against {name}: {error}") from None
    return select(first, **wanted), second


def _there(name: str, frames: RunFrames) -> str:
    """What the user may have meant."""
    key, equals, _ = name.partition("=")
    if not equals:
        return f"there is {', '.join(sorted(frames.runs['experiment'].unique()))}"
    return there(frames, key)


def short_name(name: str) -> str:
    """The name of the second set in column headings."""
    if "://" in name:
        parts = urlsplit(without_password(name))
        return parts.netloc or Path(parts.path).name
    if not Path(name).is_dir():
        return name
    path = Path(name).resolve()
    # Most runs folders are called so.
    return f"{path.parent.name}/{path.name}" if path.name == "runs" else path.name


def nearest(group: Group, others: Sequence[Group]) -> Group:
    """The group of the second set that differs from `group` in the fewest settings; the largest of several."""
    return min(others, key=lambda other: (len(differences(group, other)), -len(other.runs)))


def differences(group: Group, other: Group) -> list[str]:
    """How two groups of runs differ, as text: `precision bf16` (not fp32)."""
    first, second = group.constant, other.constant
    keys = sorted(first.keys() | second.keys())
    found = [
        f"{key} {second.get(key, NOT_SET)} (not {first.get(key, NOT_SET)})"
        for key in keys
        if first.get(key) != second.get(key)
    ]
    # Of these, what both have.
    for first, second in ((_schedules(group), _schedules(other)), (group.contents, other.contents)):
        found += [
            f"{key} {second[key]} (not {first[key]})"
            for key in sorted(first.keys() & second.keys())
            if first[key] != second[key]
        ]
    if set(group.runs["commits"]) != set(other.runs["commits"]):
        found.append(f"{commits_text(other.runs)} (not {commits_text(group.runs)})")
    return found


def _schedules(group: Group) -> dict[str, str]:
    return {
        f"{name} schedule": ", ".join(f"{key} {text}" for key, text in sorted(schedule.items()))
        for name, schedule in group.schedules.items()
    }


def beside(table: Table, second: Table | None, *, name: str, differing: Sequence[str]) -> Table:
    """`table` with each measured column of `second` after its own.

    Rows that only `second` has come last. The first number of which more or less is better is compared: its difference
    from the second set takes the place of the differences from the paper. Left out is what would make the table too
    wide to read: facts on the runs, and the paper's other numbers; what is left of the paper's comes last.
    """
    compared = next((column for column in table.of_kind(Kind.MEASURED) if column.better), None)
    other = second or replace(table, frame=table.frame.iloc[:0], notes=(), runs=table.runs.iloc[:0])
    run = {key: other.notes[place] for place, key in enumerate(other.frame.index) if place in set(other.runs["row"])}
    index = list(dict.fromkeys((*table.frame.index, *run)))
    ours, theirs = (frame.reindex(index=index, columns=table.frame.columns) for frame in (table.frame, other.frame))
    cells: dict[Column, pd.Series] = {}
    for column in sorted(table.columns, key=lambda column: column.kind is Kind.PAPER):
        own, its = ours[column.heading], theirs[column.heading]
        match column.kind:
            case Kind.NAMING:
                cells[column] = own.where(own.notna(), its)
            case Kind.MEASURED:
                cells |= {column: own, replace(column, of=name): its.map(_of_runs)}
                if column == compared:
                    difference = Column("difference", Kind.DIFFERENCE, signed(column.format), of=name)
                    cells[difference] = own.map(_mean).astype(float) - its.map(_mean).astype(float)
            case Kind.DIFFERENCE if not compared:
                cells[column] = own
            case Kind.PAPER if not compared or column.name == compared.name:
                cells[column] = own
    own_notes = dict(zip(table.frame.index, table.notes, strict=True))
    rows = other.runs["row"].map(lambda row: index.index(other.frame.index[row]))
    about = [table.about] if table.about else []
    about += [f"difference ({name}): the first runs' {compared.name} less that of {name}."] if compared else []
    return replace(
        table,
        shown=f"{table.shown}; against {name}: {'; '.join(differing) or 'the same settings'}",
        columns=tuple(cells),
        frame=pd.DataFrame({column.heading: series for column, series in cells.items()}, index),
        notes=tuple((*own_notes.get(key, ()), *(f"{name}: {note}" for note in run.get(key, ()))) for key in index),
        runs=pd.concat([table.runs, other.runs.assign(row=rows)]).sort_values("row", kind="stable"),
        about=" ".join(about),
        label=f"{table.label}-against-{name}",
    )


def _of_runs(cell: Cell) -> Cell:
    """What was published, a plain number among measured ones (Table 4), stands with the first set alone."""
    return cell if isinstance(cell, Seeds | str) else None


def _mean(cell: Cell) -> float | None:
    """Of our runs: what was published is no set of runs."""
    return cell.mean if isinstance(cell, Seeds) else None


def naming_left_out(table: Table, groups: Sequence[Group], *, name: str) -> Table:
    """`table` with a note on runs of the second set that match no group of the first."""
    left = [f"{len(group.runs)} of {name} ({group.title.replace('; ', ', ')})" for group in groups]
    return replace(table, shown="; ".join([table.shown, *(f"not shown: {text}" for text in left)]))
