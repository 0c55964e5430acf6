"""The table that a sweep file is besides its rows: what is wrong with it is said before they train for hours."""

from __future__ import annotations

import difflib
import sys

from megdet.config.locations import SWEEPS
from megdet.config.sweep_file import path_of_rows, read_sweep_file
from megdet.runs.journal import NOISE_SCALE, OWN_COLUMNS

ROWS_ALONE = {"title", "label", "rows"}
"""The keys of a file that is for running alone: it names nothing to show."""
NUMBERS = OWN_COLUMNS - {"kind", "time", "event"}
"""Those of every run's epochs."""


def check_table(rows: str | None) -> None:
    """Raises UserError where `sweep.rows` names a file of a user's own that no table could be made of.

    A number that no run may have, for it is nearly the name of one that all have, is a warning: parts of one's own
    name their losses and counts as they like.
    """
    if rows is None or (path := path_of_rows(rows)).parent == SWEEPS:
        return
    if read_sweep_file(path).keys() - ROWS_ALONE:
        # Imported here: it brings pandas, which planning does without.
        from megdet.analysis.table_spec import read_spec

        for measure in read_spec(path).measures:
            if (number := measure.number) in NUMBERS or number.startswith(NOISE_SCALE):
                continue
            for meant in difflib.get_close_matches(number, NUMBERS, n=1, cutoff=0.75):
                print(
                    f"{path.name}, measure {measure.heading}: runs have {number} only where a part of your own counts "
                    f"it; did you mean {meant}?",
                    file=sys.stderr,
                )
