"""The table that a sweep file is besides its rows: what is wrong with it is said before they train for hours."""

from __future__ import annotations

from megdet.config.locations import SWEEPS
from megdet.config.sweep_file import path_of_rows, read_sweep_file

ROWS_ALONE = {"title", "label", "rows"}
"""The keys of a file that is for running alone: it names nothing to show."""


def check_table(rows: str | None) -> None:
    """Raises UserError where `sweep.rows` names a file of a user's own that no table could be made of."""
    if rows is None or (path := path_of_rows(rows)).parent == SWEEPS:
        return
    if read_sweep_file(path).keys() - ROWS_ALONE:
        # Imported here: it brings pandas, which planning does without.
        from megdet.analysis.table_spec import read_spec

        read_spec(path)
