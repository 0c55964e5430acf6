"""A second set of runs beside the first in the same tables: other code, other data, another experiment."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from megdet.analysis.commits import commits_text
from megdet.analysis.comparable import VARIED, Group, contents_of
from megdet.analysis.runs import FACTS, RunRecord, load_runs, select
from megdet.analysis.tables import NAMING, Cell, Row, Table, difference_text
from megdet.errors import UserError
from megdet.tracking.uri import without_password

LEFT_OUT = ("difference", "# of GPUs", "Time (h) (paper)")
"""Columns, by the beginning of their name, that are too many where a second set stands beside the first."""


def second_set(
    name: str, runs: Sequence[RunRecord], *, wanted: Mapping[str, str], curves: Sequence[str]
) -> tuple[list[RunRecord], list[RunRecord]]:
    """What `--against` names: the first set of runs without it, and the second, of both those that are `wanted`.

    `name` is an experiment of `runs`, a tag or setting of theirs as KEY=VALUE (`precision=bf16`, `commit=c0ffee`), a
    runs folder or an MLflow URI. What `name` itself says of the second set (its experiment, its `sweep=`) is wanted
    of the first alone. UserError where it is none of these, or where a set has no run that is wanted.
    """
    second = [run for run in runs if run.experiment == name or run.has_tag(name)]
    said = name.partition("=")[0] if "=" in name else "experiment"
    if not second and ("://" in name or Path(name).is_dir()):
        second, said = load_runs(name, curves=curves), ""
    first = [run for run in runs if not said or run not in second]
    if not second:
        raise UserError(f"--against {name}: no such folder, experiment or KEY=VALUE; {_there(name, runs)}")
    if not first:
        raise UserError(f"--against {name}: all runs are of that set; name another one, or a folder")
    try:
        second = select(second, **{key: value for key, value in wanted.items() if key != said})
    except UserError as error:
        raise UserError(f"--against {name}: {error}") from None
    return select(first, **wanted), second


def _there(name: str, runs: Sequence[RunRecord]) -> str:
    """What could have been meant."""
    key, equals, _ = name.partition("=")
    if not equals:
        return f"there is {', '.join(sorted({run.experiment for run in runs}))}"
    values = sorted({value for run in runs for value in run.tag(key)})
    if values:
        return f"there is {key}={', '.join(values)}"
    keys = ["sweep", *FACTS, *sorted({key for run in runs for key in (*run.settings, *run.tags)})]
    near = difflib.get_close_matches(key, keys, n=1)
    return f"no run has {key}" + (f"; did you mean {near[0]}?" if near else f"; there is {', '.join(keys)}")


def short_name(name: str) -> str:
    """What `--against` names, as a column's heading shows it."""
    if "://" in name:
        parts = urlsplit(without_password(name))
        return parts.netloc or Path(parts.path).name
    return Path(name).resolve().name if Path(name).is_dir() else name


def nearest(group: Group, others: Sequence[Group]) -> Group:
    """Of the groups of the second set, the one that differs from `group` in the fewest settings, then the largest."""
    return min(others, key=lambda other: (len(differences(group, other)), -len(other.runs)))


def differences(group: Group, other: Group) -> list[str]:
    """What two groups of runs do not have in common, as text: `precision bf16 (not fp32)`."""
    first, second = _settings(group.runs[0]), _settings(other.runs[0])
    found = [
        f"{key} {second.get(key, 'not set')} (not {first.get(key, 'not set')})"
        for key in sorted(first.keys() | second.keys())
        if first.get(key) != second.get(key)
    ]
    for described in (_schedules, contents_of):  # of these, what both have
        first, second = described(group.runs), described(other.runs)
        found += [
            f"{key} {second[key]} (not {first[key]})"
            for key in sorted(first.keys() & second.keys())
            if first[key] != second[key]
        ]
    if {run.commits for run in group.runs} != {run.commits for run in other.runs}:
        found.append(f"{commits_text(other.runs)} (not {commits_text(group.runs)})")
    return found


def beside(table: Table, second: Table | None, *, name: str, differing: Sequence[str]) -> Table:
    """`table` with each measured column of `second` after its own, and the difference of mmAP.

    Rows that only `second` has come last. Left out is what would make it too wide to read: the differences from the
    paper, the paper's hours, and the GPUs.
    """
    kept = [place for place, column in enumerate(table.columns) if not column.startswith(LEFT_OUT)]
    # What the paper has comes last: it is not what these tables compare.
    kept.sort(key=lambda place: table.columns[place].endswith("(paper)"))
    columns: list[str] = []
    for column in (table.columns[place] for place in kept):
        columns += [column, f"{column} ({name})"] if _is_measured(column) else [column]
        columns += [f"difference ({name})"] if column == "mmAP" else []
    others = {row.key: row for row in second.rows} if second else {}
    joined = [_joined(table, kept, row, others.get(row.key), name) for row in table.rows]
    known = {row.key for row in table.rows}
    for row in others.values():
        if row.key not in known and row.runs:
            named = tuple(None if _is_measured(table.columns[i]) else cell for i, cell in enumerate(row.cells))
            joined.append(_joined(table, kept, Row(named, key=row.key), row, name))
    how = "; ".join(differing) or "the same settings"
    about = [table.about] if table.about else []
    about += [f"difference ({name}): the first runs' mmAP less that of {name}."] if "mmAP" in table.columns else []
    return replace(
        table,
        runs=f"{table.runs}; against {name}: {how}",
        columns=tuple(columns),
        rows=tuple(joined),
        about=" ".join(about),
    )


def naming_left_out(table: Table, groups: Sequence[Group], *, name: str) -> Table:
    """`table` with what `--against` named too but has no place in it: neither beside these runs nor beside others."""
    left = [f"{len(group.runs)} of {name} ({group.title.replace('; ', ', ')})" for group in groups]
    return replace(table, runs="; ".join([table.runs, *(f"not shown: {text}" for text in left)]))


def _joined(table: Table, kept: Sequence[int], row: Row, other: Row | None, name: str) -> Row:
    cells: list[Cell] = []
    for place in kept:
        cells.append(row.cells[place])
        if _is_measured(table.columns[place]):
            cells.append(other.cells[place] if other else None)
        if table.columns[place] == "mmAP":
            theirs = other.mmAP if other else None
            cells.append(None if row.mmAP is None or theirs is None else difference_text(row.mmAP - theirs))
    notes = (*row.notes, *(f"{name}: {note}" for note in (other.notes if other and other.runs else ())))
    return Row(tuple(cells), notes, row.key, row.runs + (other.runs if other else ()))


def _is_measured(column: str) -> bool:
    return column not in NAMING and not column.endswith("(paper)") and "difference" not in column


def _settings(run: RunRecord) -> dict[str, str]:
    """What the runs of a group have in common."""
    return {k: v for k, v in run.settings.items() if k not in VARIED and not k.startswith("schedule.")}


def _schedules(runs: Sequence[RunRecord]) -> dict[str, str]:
    return {
        f"{run.schedule} schedule": ", ".join(
            f"{k.removeprefix('schedule.')} {v}" for k, v in sorted(run.settings.items()) if k.startswith("schedule.")
        )
        for run in runs
    }
