"""Table 1: how many positive samples there are to the negative ones, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence

from megdet.analysis.by_row import by_row
from megdet.analysis.comparable import Group
from megdet.analysis.paper import RatioRow, epoch_beside, label_of, ratio_table
from megdet.analysis.runs import RunRecord
from megdet.analysis.tables import OURS, Cell, Row, Table, cell_of, difference_text, notes_on

MEASURES = tuple(ratio_table().measures.values())
"""What is needed of the runs' epochs."""
ABOUT = (
    "Ratio: positive samples per 100 negative ones, over all steps of the epoch: RPN, of the sampled anchors; RoI, of "
    "the sampled proposals. The paper does not say which of them it counts, nor the BN size. 12 (ours: 11): its normal "
    "schedule ends at epoch 11, so its epoch 12 has our last one beside it. Rows that the paper has not (†) stand in "
    "until its own have been run."
)


def make_ratio_table(group: Group | None) -> Table | None:
    """Table 1 for one group of comparable runs; None if no epoch has a ratio. Without a group, the paper's."""
    paper = ratio_table()
    title = f"Table 1: {paper.title}"
    columns = ["Epoch", "Batch Size", "BN size"]
    for name in paper.measures:
        columns += [f"{name} Ratio(%)", f"{name} difference"]
    columns.append("Ratio(%) (paper)")
    by_key = by_row(group.runs if group else ())
    if group and not any(_has_ratio(run) for run in group.runs):
        return None
    printed = [row.key for row in paper.rows]
    measured = [key for key, runs in by_key.items() if any(map(_has_ratio, runs))]
    # Where the paper's own comparison can be made, dozens of further rows would only hide it.
    measured = [] if set(printed) <= set(measured) else [key for key in measured if key not in printed]
    own = [RatioRow(key, label_of(key) + OURS, {}) for key in measured]
    epochs = {row.key: set(row.percent) for row in paper.rows}
    wanted = sorted(set().union(*epochs.values()))
    rows = []
    for row in (*paper.rows, *own):
        runs = by_key.get(row.key, [])
        shown = epochs.get(row.key) or _epochs_of(runs, wanted)
        rows += [(epoch, _row(row, epoch, runs, tuple(paper.measures.values()))) for epoch in shown]
    rows.sort(key=lambda pair: pair[0])  # stable: within an epoch the paper's first
    about = ABOUT if group else f"{ABOUT} No run has a ratio yet."
    return Table(title, group.heading if group else "no run yet", tuple(columns), tuple(r for _, r in rows), about)


def _has_ratio(run: RunRecord) -> bool:
    return any(line.get(measure) is not None for line in run.epochs for measure in MEASURES)


def _epochs_of(runs: Sequence[RunRecord], wanted: Sequence[int]) -> set[int]:
    """The epochs at which runs that the paper has not are shown: the paper's, and the last of the schedule."""
    last = max(run.schedule_epochs for run in runs)
    shown = {epoch for epoch in wanted if epoch_beside(epoch, last) is not None}
    return shown if any(epoch_beside(epoch, last) == last for epoch in shown) else shown | {last}


def _row(row: RatioRow, epoch: int, runs: Sequence[RunRecord], measures: Sequence[str]) -> Row:
    theirs = row.percent.get(epoch)
    cells: list[Cell] = []
    beside: set[int] = set()
    given: list[RunRecord] = []
    instead: list[RunRecord] = []
    for measure in measures:
        values, of = [], []
        for run in runs:
            own = epoch_beside(epoch, run.schedule_epochs)
            line = next((line for line in run.epochs if line["epoch"] == own), {})
            value = line.get(measure)
            if value is not None and own is not None:
                values.append(value)
                of.append(run)
                beside.add(own)
        mean = sum(values) / len(values) if values else None
        # A finished run without the ratio is not worth a word.
        missing = [run for run in runs if run.state != "finished"]
        (given if values else instead).extend(of or missing)
        cells.append(cell_of([] if values else missing, values, digits=2))
        cells.append(difference_text(mean - theirs, digits=2) if mean is not None and theirs is not None else None)
    cells.append(None if theirs is None else f"{theirs:.2f}")
    ours = ", ".join(str(own) for own in sorted(beside - {epoch}))
    named = (f"{epoch} (ours: {ours})" if ours else str(epoch), row.label, str(row.key[1]))
    others = [run for run in runs if run not in given]
    shown = tuple(run for run in runs if run in given or run in instead)
    return Row((*named, *cells), notes_on(others, given), (epoch, *row.key), shown)
