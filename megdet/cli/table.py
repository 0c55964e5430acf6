"""The table of runs, for `status`: it fits into 80 characters, and names in it can be copied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from megdet.cli.standing import Standing, standing_of
from megdet.errors import printable
from megdet.launchers.watch import STYLES
from megdet.runs.folder import RunFolder
from megdet.runs.status import Stand, Status
from megdet.runs.times import duration_text

COLUMNS = ("run", "status", "epoch", "mmAP", "trained", "left")
"""`trained`: time of training so far; `left`: at the present speed."""
WHERE_THEY_DIFFER = ("model", "data")
"""Columns of their own where runs differ in them."""


def table_of(stands: Mapping[RunFolder, Stand], *, live_first: bool = False) -> Group:
    """The table of runs under a line that counts them by status, and below it a line for each that has a reason.

    `live_first`: runs that are under way come first, for a screen that may not hold them all.
    """
    rows = [standing_of(folder, stand) for folder, stand in stands.items()]
    if live_first:
        rows.sort(key=lambda row: not Status(row.status).is_live)
    differing = [name for name in WHERE_THEY_DIFFER if len({getattr(row, name) for row in rows} - {None}) > 1]
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for name in (*COLUMNS, *differing):
        is_number = name in ("epoch", "mmAP", "trained", "left")
        table.add_column(name, justify="right" if is_number else "left", no_wrap=True)
    table.columns[0].min_width = max((len(row.run) for row in rows), default=0)  # never cut
    for row in rows:
        cells = [*_cells(row), *(getattr(row, name) or "" for name in differing)]
        styles = ("", STYLES.get(Status(row.status), "")) + len(cells[2:]) * ("",)
        table.add_row(*(Text(printable(cell), style) for cell, style in zip(cells, styles, strict=True)))
    counts = Counter(row.status for row in rows)
    reasons = [Text(printable(f"{row.run}: {row.why}")) for row in rows if row.why]
    return Group(Text(", ".join(f"{count} {status}" for status, count in counts.most_common())), table, *reasons)


def _cells(row: Standing) -> tuple[str, ...]:
    return (
        row.run,
        row.status,
        "" if row.epochs is None else f"{row.epoch}/{row.epochs}",
        "" if row.mmAP is None else f"{row.mmAP:.1f}",
        "" if row.train_s is None else duration_text(row.train_s),
        "" if row.left_s is None else duration_text(row.left_s),
    )
