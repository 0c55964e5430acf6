"""Table 4: the leaderboard as published, the runs that have been measured below it."""

from __future__ import annotations

import pandas as pd

from megdet.analysis.cells import Cell, decimals, seeds_of
from megdet.analysis.comparable import Group
from megdet.analysis.paper import paper_spec
from megdet.analysis.rows import by_row, row_name
from megdet.analysis.table import OURS, Column, Kind, Row, Table, table_of
from megdet.analysis.tables.recipe import Recipe

COLUMNS = (
    Column("name", Kind.NAMING),
    Column("mmAP", Kind.MEASURED, decimals(1), better="up"),
    Column("mmAR", Kind.MEASURED, decimals(1), better="up"),
)
ABOUT = (
    "The published entries are of COCO's test-dev, MegDet's an ensemble with further techniques; ours are single "
    "models on the validation set that their runs are evaluated on, best first."
)


def make(group: Group | None) -> Table | None:
    """The published entries and one group's runs that have ended; None if none has finished. Without a group, the
    entries alone.
    """
    spec = paper_spec("table4")
    rows = [
        Row(
            (row.label,),
            [row.label, *(row.paper[column.name] for column in COLUMNS[1:])],
            (row.note,) if row.note else (),
        )
        for row in spec.rows
    ]
    title, shown = f"Table 4: {spec.title}", "no run yet"
    if group:
        finished = group.runs[(group.runs["status"] == "finished") & group.runs["mmAP"].notna()]
        if finished.empty:
            return None
        ended = group.runs[group.runs.index.isin(finished.index) | (group.runs["status"] == "diverged")]
        # Those of which all runs diverged come last.
        ours = sorted(by_row(ended).items(), key=lambda item: -_mean(item[1]))
        rows += [
            Row(key, [row_name(key) + OURS, *(_cell(runs, c.name) for c in COLUMNS[1:])], (), runs)
            for key, runs in ours
        ]
        images = group.constant.get("data.val_images", "the")
        shown = f"{group.title}; ours on {images} validation images of {group.constant['data']}"
    return table_of(title, shown, COLUMNS, rows, about=ABOUT, label=spec.label)


def _mean(runs: pd.DataFrame) -> float:
    finished = runs["mmAP"].dropna()
    return float(finished.mean()) if len(finished) else -1.0


def _cell(runs: pd.DataFrame, name: str) -> Cell:
    return seeds_of(runs, runs[name].dropna(), name=name)


RECIPE = Recipe("4", make, is_of_the_paper=True)
