"""A second set of runs as further columns of the same tables: other code, other data, another experiment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from analysis.comparable import VARIED, Group
from analysis.runs import RunRecord, load_runs
from analysis.tables import Cell, Row, Table
from megdet.errors import UserError
from megdet.tracking.uri import without_password

FIRST = ("name", "Epoch", "Batch Size", "Mini-Batch size", "Batch size", "BN size")
"""The columns that say which row it is."""


def second_set(
    name: str, runs: Sequence[RunRecord], *, curves: Sequence[str]
) -> tuple[list[RunRecord], list[RunRecord]]:
    """What `--against` names: the first set of runs without it, and the second.

    `name` is an experiment of `runs`, a runs folder or an MLflow URI. UserError where it is none of these.
    """
    second = [run for run in runs if run.experiment == name]
    if not second and ("://" in name or Path(name).is_dir()):
        return list(runs), load_runs(name, curves=curves)
    first = [run for run in runs if run.experiment != name]
    there = ", ".join(sorted({run.experiment for run in runs}))
    if not second:
        raise UserError(f"--against {name}: no such folder, and no experiment of that name; there is {there}")
    if not first:
        raise UserError(f"--against {name}: all runs are of that experiment; name another set, or a folder")
    return first, second


def short_name(name: str) -> str:
    """What `--against` names, as a column's heading shows it."""
    if "://" in name:
        return without_password(name)
    return Path(name).resolve().name if "/" in name or name.startswith(".") else name


def nearest(group: Group, others: Sequence[Group]) -> Group:
    """Of the groups of the second set, the one that differs from `group` in the fewest settings, then the largest."""
    return min(others, key=lambda other: (len(differences(group, other)), -len(other.runs)))


def differences(group: Group, other: Group) -> list[str]:
    """What two groups of runs do not have in common, as text: `precision bf16 (not fp32)`."""
    first, second = _settings(group), _settings(other)
    return [
        f"{key} {second.get(key, 'not set')} (not {first.get(key, 'not set')})"
        for key in sorted(first.keys() | second.keys())
        if first.get(key) != second.get(key)
    ]


def beside(table: Table, second: Table | None, *, name: str, differing: Sequence[str]) -> Table:
    """`table` with the measured columns of `second` after its own; rows that only `second` has come last."""
    measured = [place for place, column in enumerate(table.columns) if _is_measured(column)]
    others = {row.key: row for row in second.rows} if second else {}
    columns = [*table.columns, *(f"{table.columns[place]} ({name})" for place in measured)]
    with_mmAP = "mmAP" in table.columns
    if with_mmAP:
        columns.append(f"mmAP difference ({name})")
    rows = [_joined(row, others.get(row.key), measured, with_mmAP, name) for row in table.rows]
    known = {row.key for row in table.rows}
    for row in others.values():
        if row.key not in known and row.runs:
            shared = [cell if _names_or_paper(table.columns[i]) else None for i, cell in enumerate(row.cells)]
            rows.append(_joined(Row(tuple(shared), key=row.key), row, measured, with_mmAP, name))
    how = "; ".join(differing) or "the same settings"
    about = (
        f"{table.about} mmAP difference ({name}): the first runs less those of {name}." if with_mmAP else table.about
    )
    return Table(table.title, f"{table.runs}; against {name}: {how}", tuple(columns), tuple(rows), about.strip())


def _joined(row: Row, other: Row | None, measured: Sequence[int], with_mmAP: bool, name: str) -> Row:
    cells: list[Cell] = [*row.cells, *((other.cells[place] if other else None) for place in measured)]
    if with_mmAP:
        first, second = _mean(row), _mean(other) if other else None
        cells.append(f"{first - second:+.1f}" if first is not None and second is not None else None)
    notes = [row.note] if row.note else []
    if other and other.runs and other.note:
        notes += [f"{name}: {note}" for note in other.note.split("; ")]
    return Row(tuple(cells), "; ".join(notes), row.key, row.runs + (other.runs if other else ()))


def _mean(row: Row) -> float | None:
    values = [value for run in row.runs if (value := run.final.get("mmAP")) is not None]
    return fmean(values) if values else None


def _is_measured(column: str) -> bool:
    return not _names_or_paper(column) and "difference" not in column


def _names_or_paper(column: str) -> bool:
    return column in FIRST or column.endswith("(paper)")


def _settings(group: Group) -> dict[str, str]:
    """What the runs of a group have in common, and the schedules by name."""
    same = {k: v for k, v in group.runs[0].settings.items() if k not in VARIED and not k.startswith("schedule.")}
    for run in group.runs:
        text = ", ".join(
            f"{k.removeprefix('schedule.')} {v}" for k, v in sorted(run.settings.items()) if "schedule." in k
        )
        same[f"{run.schedule} schedule"] = text
    return same
