"""Table 4: the leaderboard as published, the runs that have been measured below it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from megdet.analysis.by_row import by_row
from megdet.analysis.comparable import Group
from megdet.analysis.paper import RowKey, leaderboard, row_name
from megdet.analysis.runs import RunRecord
from megdet.analysis.tables import OURS, Row, Table, cell_of

COLUMNS = ("name", "mmAP", "mmAR")
ABOUT = (
    "The published entries are of COCO's test-dev, MegDet's an ensemble with further techniques; ours are single "
    "models on the validation set that their runs are evaluated on, best first."
)


def make_leaderboard(group: Group | None) -> Table | None:
    """Table 4 with one group's finished runs; None if it has none. Without a group, the paper's rows alone."""
    title, entries = leaderboard()
    rows = [
        Row((entry.name, f"{entry.mmAP:.1f}", f"{entry.mmAR:.1f}"), (entry.note,) if entry.note else (), (entry.name,))
        for entry in entries
    ]
    if group is None:
        return Table(f"Table 4: {title}", "no run yet", COLUMNS, tuple(rows), ABOUT)
    by_key = by_row(run for run in group.runs if run.state == "finished" and run.final.get("mmAP") is not None)
    if not by_key:
        return None
    ours = sorted(by_key.items(), key=lambda item: -_mmAP(item[1]))
    rows += [_row(key, runs) for key, runs in ours]
    images = group.runs[0].settings.get("data.val_images", "the")
    where = f"{group.title}; ours on {images} validation images of {group.runs[0].data}"
    return Table(f"Table 4: {title}", where, COLUMNS, tuple(rows), ABOUT)


def _row(key: RowKey, runs: list[RunRecord]) -> Row:
    def cell(name: str) -> str | None:
        values = [value for run in runs if (value := run.final.get(name)) is not None]
        return cell_of(runs, values) if values else None

    name = row_name(key) + OURS
    return Row((name, cell("mmAP"), cell("mmAR")), key=key, runs=tuple(runs), mmAP=_mmAP(runs))


def _mmAP(runs: Sequence[RunRecord]) -> float:
    return fmean(run.final["mmAP"] or 0 for run in runs)
