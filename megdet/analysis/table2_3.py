"""Tables 2 and 3: the paper's rows with ours beside them, then our own rows."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from megdet.analysis.by_row import by_row
from megdet.analysis.comparable import Group
from megdet.analysis.paper import PaperRow, PaperTable, RowKey, label_of
from megdet.analysis.runs import RunRecord
from megdet.analysis.tables import OURS, Cell, Row, Table, cell_of, difference_text, mean_hours_text, notes_on


def make_table(paper: PaperTable, group: Group) -> Table | None:
    """One of the paper's tables for one group of comparable runs; None if no run belongs in it."""
    by_key = by_row(group.runs)
    printed = {row.key for row in paper.rows}
    rows = list(paper.rows)
    rows += [
        PaperRow(key, _own_label(paper.number, key), gpus=None, mmAP=None, hours=None)
        for key in by_key
        if key not in printed and _belongs(paper.number, key, by_key)
    ]
    if not any(row.key in by_key for row in rows):
        return None
    shown = [run for row in rows for run in by_key.get(row.key, [])]
    # Table 2 has no column of GPUs, by which its rows could be told apart.
    apart = paper.number == 2 and len(_by_gpus(_finished(shown))) > 1
    return Table(
        title=f"Table {paper.number}: {paper.title}",
        runs=group.heading,
        columns=_columns(paper.number),
        rows=tuple(
            _row(paper.number, row, by_key.get(row.key, []), printed=row.key in printed, gpus_apart=apart)
            for row in rows
        ),
    )


def empty_table(paper: PaperTable) -> Table:
    """The paper's rows alone."""
    rows = tuple(_row(paper.number, row, [], printed=True, gpus_apart=False) for row in paper.rows)
    return Table(f"Table {paper.number}: {paper.title}", "no run yet", _columns(paper.number), rows)


def _columns(number: int) -> tuple[str, ...]:
    row = ("Mini-Batch size",) if number == 2 else ("Batch size", "BN size", "# of GPUs", "# of GPUs (paper)")
    return (*row, "mmAP", "mmAP (paper)", "difference", "Time (h)", "Time (h) (paper)")


def _belongs(number: int, key: RowKey, by_key: dict[RowKey, list[RunRecord]]) -> bool:
    """Whether a row of ours goes into the table.

    Frozen BN goes into Table 2. Table 3 has one baseline, 16-base; where that was not run, the frozen runs
    whose batch also ran with BN stand in for it.
    """
    batch, bn_size, schedule, scale = key
    if number == 2:
        return bn_size == 0
    if bn_size > 0:
        return True
    with_bn = any(other[0] == batch and other[1] > 0 and other[2] == schedule for other in by_key)
    return scale == 1 and with_bn and (16, 0, "normal", 1.0) not in by_key


def _own_label(number: int, key: RowKey) -> str:
    base = "-base" if number == 3 and key[1] == 0 else ""
    return label_of(key).replace(str(key[0]), f"{key[0]}{base}", 1) + OURS


def _finished(runs: Sequence[RunRecord]) -> list[RunRecord]:
    return [run for run in runs if run.state == "finished" and run.final.get("mmAP") is not None]


def _by_gpus(runs: Sequence[RunRecord]) -> dict[int, list[float]]:
    """Hours of training, by the number of GPUs: they say nothing of one another."""
    return {
        gpus: [run.train_s / 3600 for run in runs if run.gpus == gpus] for gpus in sorted({run.gpus for run in runs})
    }


def _hours(runs: Sequence[RunRecord], *, gpus_apart: bool) -> Cell:
    """Hours of training; those on each number of GPUs where these differ, or `gpus_apart` asks for it."""
    by_gpus = {gpus: mean_hours_text(hours) for gpus, hours in _by_gpus(runs).items()}
    if len(by_gpus) < 2 and not gpus_apart:
        return next(iter(by_gpus.values()), None)
    return ", ".join(f"{text} ({gpus} GPU{'s' if gpus > 1 else ''})" for gpus, text in by_gpus.items()) or None


def _row(number: int, row: PaperRow, runs: Sequence[RunRecord], *, printed: bool, gpus_apart: bool) -> Row:
    finished = _finished(runs)
    values = [float(run.final["mmAP"] or 0) for run in finished]
    mean = fmean(values) if values else None
    difference = difference_text(mean - row.mmAP) if mean is not None and row.mmAP is not None else None
    front: tuple[Cell, ...] = (row.label,)
    if number == 3:
        gpus = ", ".join(str(number) for number in sorted({run.gpus for run in runs}))
        front += (str(row.key[1]), gpus or None, str(row.gpus) if row.gpus else None)
    paper_mmAP = (f"{row.mmAP:.1f}" if row.mmAP is not None else "failed") if printed else None
    paper_hours = None if row.hours is None else f"{row.hours:.1f}"
    hours = _hours(finished, gpus_apart=gpus_apart)
    cells = (*front, cell_of(runs, values), paper_mmAP, difference, hours, paper_hours)
    return Row(cells, notes_on(runs, finished), row.key, tuple(runs), mean)
