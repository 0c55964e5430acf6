"""Tables 2 and 3: the paper's rows with ours beside them, then our own rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from analysis.comparable import Group
from analysis.paper import PaperRow, PaperTable, RowKey, key_of, label_of
from analysis.runs import RunRecord

OURS = " †"
"""Marks a row that the paper does not have."""
NOT_RUN = "\N{EN DASH}"
LEGEND = (
    "mmAP: COCO AP in percent after the last epoch; over several seeds, mean ± standard deviation (seeds). "
    f"Time: training alone. failed: training diverged. {NOT_RUN}: not run. †: not in the paper."
)

Cell = str | None
"""None: nothing there (not run, or not given)."""


@dataclass(frozen=True)
class Row:
    cells: tuple[Cell, ...]
    note: str = ""
    key: tuple[object, ...] = ()
    """What makes it the same row in another table of the same kind."""
    runs: tuple[RunRecord, ...] = ()
    """The runs that its cells are made of."""


@dataclass(frozen=True)
class Table:
    """A table as text, for any format."""

    title: str
    runs: str
    """Which runs it shows."""
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    about: str = ""
    """What a reader must know to read it."""


def make_table(paper: PaperTable, group: Group) -> Table | None:
    """One of the paper's tables for one group of comparable runs; None if no run belongs in it."""
    by_key: dict[RowKey, list[RunRecord]] = defaultdict(list)
    for run in group.runs:
        by_key[key_of(run)].append(run)
    printed = {row.key for row in paper.rows}
    rows = list(paper.rows)
    rows += [
        PaperRow(key, _own_label(paper.number, key), gpus=None, mmAP=None, hours=None)
        for key in sorted(by_key, key=lambda key: (key[2] != "normal", key[2], key[0], key[1], -key[3]))
        if key not in printed and _belongs(paper.number, key, by_key)
    ]
    if not any(row.key in by_key for row in rows):
        return None
    return Table(
        title=f"Table {paper.number}: {paper.title}",
        runs=runs_text(group),
        columns=_columns(paper.number),
        rows=tuple(_row(paper.number, row, by_key.get(row.key, []), row.key in printed) for row in rows),
    )


def empty_table(paper: PaperTable) -> Table:
    """The paper's rows alone."""
    rows = tuple(_row(paper.number, row, [], True) for row in paper.rows)
    return Table(f"Table {paper.number}: {paper.title}", "no run yet", _columns(paper.number), rows)


def runs_text(group: Group) -> str:
    """Which runs a table shows, and what to think of their differences from the paper."""
    apart = "" if group.is_like_the_paper else "; not the paper's data or model, so the differences say little"
    return group.title + apart


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


def _row(number: int, row: PaperRow, runs: Sequence[RunRecord], printed: bool) -> Row:
    finished = [run for run in runs if run.state == "finished" and run.final.get("mmAP") is not None]
    values = [float(run.final["mmAP"] or 0) for run in finished]
    difference = f"{fmean(values) - row.mmAP:+.1f}" if values and row.mmAP is not None else None
    front: tuple[Cell, ...] = (row.label,)
    if number == 3:
        gpus = ", ".join(str(number) for number in sorted({run.gpus for run in runs}))
        front += (str(row.key[1]), gpus or None, str(row.gpus) if row.gpus else None)
    paper_mmAP = (f"{row.mmAP:.1f}" if row.mmAP is not None else "failed") if printed else None
    paper_hours = None if row.hours is None else f"{row.hours:.1f}"
    hours = hours_text(fmean([run.train_s for run in finished]) / 3600) if finished else None
    cells = (*front, cell_of(runs, values), paper_mmAP, difference, hours, paper_hours)
    return Row(cells, note_on(runs, finished), row.key, tuple(runs))


def mean_text(values: Sequence[float], digits: int = 1) -> str:
    """Over several seeds: mean ± sample standard deviation (how many)."""
    spread = f" ± {stdev(values):.{digits}f} ({len(values)})" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{spread}"


def cell_of(runs: Sequence[RunRecord], values: Sequence[float], digits: int = 1) -> Cell:
    """What the runs of a row say: the values of those that gave one, else why there is none."""
    diverged = sum(run.state == "diverged" for run in runs)
    if values:
        text = mean_text(values, digits)
        return text + (f"; {diverged} of {diverged + len(values)} failed" if diverged else "")
    if diverged:
        return "failed" if diverged == 1 else f"failed ({diverged} of {diverged})"
    states = {run.state for run in runs}
    # An error says nothing about training: it must not read as the paper's `failed`.
    return next((text for state, text in _UNDONE.items() if state in states), None)


_UNDONE = {"running": "running", "interrupted": "interrupted", "failed": "error", "finished": "no mmAP"}
"""What a cell without a result says, the first that applies."""


def note_on(runs: Sequence[RunRecord], finished: Sequence[RunRecord]) -> str:
    """What a reader should know of the runs of a row, of which `finished` gave its values."""
    notes = []
    undone = [run.state for run in runs if run.state in ("running", "interrupted", "failed")]
    if finished and undone:
        counts = {state: undone.count(state) for state in dict.fromkeys(undone)}
        notes.append("further seeds " + ", ".join(f"{_UNDONE[state]}: {count}" for state, count in counts.items()))
    shown = [run for run in runs if run.state in ("finished", "diverged")]
    commits = sorted({run.commit for run in shown})
    if len(commits) > 1:
        notes.append("runs of different commits: " + ", ".join(commit[:10] for commit in commits))
    if any(run.dirty for run in shown):
        notes.append("run with uncommitted changes")
    return "; ".join(notes)


def hours_text(hours: float) -> str:
    """As in the paper from an hour on, with three digits below."""
    return f"{hours:.1f}" if hours >= 1 else f"{hours:.3g}"
