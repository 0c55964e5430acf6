"""Table 1: how many positive samples there are to the negative ones, epoch by epoch."""

from __future__ import annotations

import pandas as pd

from megdet.analysis.cells import Cell, decimals, notes_on, seeds_of, signed
from megdet.analysis.comparable import Group
from megdet.analysis.paper import RatioRow, epoch_beside, ratio_table
from megdet.analysis.rows import by_row, label_of
from megdet.analysis.table import OURS, Column, Kind, Row, Table, table_of
from megdet.analysis.tables.recipe import Recipe

MEASURES = tuple(ratio_table().measures.values())
"""What is needed of the runs' epochs."""
ABOUT = (
    "Ratio: positive samples per 100 negative ones, over all steps of the epoch: RPN, of the sampled anchors; RoI, of "
    "the sampled proposals. The paper does not say which of them it counts, nor the BN size. 12 (ours: 11): its normal "
    "schedule ends at epoch 11, so its epoch 12 has our last one beside it. Rows that the paper has not (†) stand in "
    "until its own have been run."
)


def make(group: Group | None) -> Table | None:
    """For one group of comparable runs; None if no epoch has a ratio. Without a group, the paper's."""
    paper = ratio_table()
    title = f"Table 1: {paper.title}"
    columns = [Column("Epoch", Kind.NAMING, in_notes=False), Column("Batch Size", Kind.NAMING)]
    columns.append(Column("BN size", Kind.NAMING))
    for name in paper.measures:
        columns.append(Column(f"{name} Ratio", Kind.MEASURED, decimals(2), unit="%"))
        columns.append(Column(f"{name} difference", Kind.DIFFERENCE, signed(decimals(2))))
    columns.append(Column("Ratio", Kind.PAPER, decimals(2), unit="%"))
    if group is None:
        rows = [_row(row, epoch, None, None) for row in paper.rows for epoch in row.percent]
        rows.sort(key=lambda row: row.key[0])
        return table_of(title, "no run yet", columns, rows, about=f"{ABOUT} No run has a ratio yet.", label=paper.label)
    ratios = group.epochs.reindex(columns=["run", "epoch", *MEASURES]).dropna(subset=list(MEASURES), how="all")
    if ratios.empty:
        return None
    by_key = by_row(group.runs)
    printed = [row.key for row in paper.rows]
    measured = [key for key, runs in by_key.items() if runs.index.isin(ratios["run"]).any()]
    # Where the paper's own comparison can be made, dozens of further rows would only hide it.
    measured = [] if set(printed) <= set(measured) else [key for key in measured if key not in printed]
    own = [RatioRow(key, label_of(key) + OURS, {}) for key in measured]
    wanted = sorted({epoch for row in paper.rows for epoch in row.percent})
    made = []
    for row in (*paper.rows, *own):
        runs = by_key.get(row.key, group.runs.iloc[:0])
        shown = row.percent or _epochs_of(runs, wanted)
        made += [_row(row, epoch, runs, ratios) for epoch in shown]
    made.sort(key=lambda row: row.key[0])  # stable: within an epoch the paper's first
    return table_of(title, group.heading, columns, made, about=ABOUT, label=paper.label)


def _epochs_of(runs: pd.DataFrame, wanted: list[int]) -> set[int]:
    """The epochs shown for runs that the paper does not have: the paper's, and the schedule's last."""
    last = int(runs["schedule.epochs"].max())
    shown = {epoch for epoch in wanted if epoch_beside(epoch, last) is not None}
    return shown if any(epoch_beside(epoch, last) == last for epoch in shown) else shown | {last}


def _row(row: RatioRow, epoch: int, runs: pd.DataFrame | None, ratios: pd.DataFrame | None) -> Row:
    theirs = row.percent.get(epoch)
    if runs is None or ratios is None or runs.empty:
        nothing = [None] * 2 * len(MEASURES)
        return Row((epoch, *row.key), [str(epoch), row.label, row.key[1], *nothing, theirs])
    own = runs["schedule.epochs"].map(lambda last: epoch_beside(epoch, int(last)))
    here = ratios[ratios["epoch"] == ratios["run"].map(own)].set_index("run").reindex(runs.index)
    unfinished = runs[runs["status"] != "finished"]  # a finished run without the ratio is not worth a word
    cells: list[Cell] = []
    for measure in MEASURES:
        values = here[measure].dropna()
        cell = seeds_of(runs.iloc[:0] if len(values) else unfinished, values)
        cells += [cell, None if cell.mean is None or theirs is None else cell.mean - theirs]
    given = here[list(MEASURES)].notna().any(axis=1)
    beside = ", ".join(f"{other:.0f}" for other in sorted(set(own[given]) - {epoch}))
    named: list[Cell] = [f"{epoch} (ours: {beside})" if beside else str(epoch), row.label, row.key[1]]
    shown = runs[given | ((runs["status"] != "finished") & here[list(MEASURES)].isna().all(axis=None))]
    return Row((epoch, *row.key), [*named, *cells, theirs], notes_on(runs[~given], shown=bool(given.any())), shown)


RECIPE = Recipe("1", make, epochs=MEASURES, is_of_the_paper=True)
