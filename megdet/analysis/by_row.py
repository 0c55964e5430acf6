"""Runs by the row that they belong to, in the order in which tables and figures show rows."""

from __future__ import annotations

from collections.abc import Iterable

from megdet.analysis.paper import RowKey, key_of
from megdet.analysis.runs import RunRecord

BASE: RowKey = (16, 0, "normal", 1.0)
"""16-base, the baseline of Table 3: what improvement and speed-up are against."""


def by_row(runs: Iterable[RunRecord]) -> dict[RowKey, list[RunRecord]]:
    """The runs of each row, in the order of the rows, by seed."""
    rows: dict[RowKey, list[RunRecord]] = {}
    for run in sorted(runs, key=lambda run: (*place_of(key_of(run)), run.seed, run.run_id)):
        rows.setdefault(key_of(run), []).append(run)
    return rows


def place_of(key: RowKey) -> tuple[bool, str, int, int, float]:
    """What rows are sorted by: the normal schedule first, then batch, BN size and the full learning rate first."""
    batch, bn_size, schedule, scale = key
    return schedule != "normal", schedule, batch, bn_size, -scale
