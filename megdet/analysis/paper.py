"""The rows of the paper's tables and figures, from `sweeps/`: what each asks for, and the paper's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml  # type: ignore[import-untyped]

from megdet.analysis.runs import RunRecord
from megdet.config.locations import SWEEPS

RowKey = tuple[int, int, str, float]
"""batch, bn_size, schedule, lr.scale: what makes a row; GPUs do not."""


@dataclass(frozen=True)
class PaperRow:
    """One row of a table of the paper, or one curve of a figure."""

    key: RowKey
    label: str
    """The row's name as printed."""
    gpus: int | None
    mmAP: float | None
    """Percent; None where training failed."""
    hours: float | None


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper."""

    number: int
    title: str
    rows: tuple[PaperRow, ...]


@dataclass(frozen=True)
class RatioRow:
    """A mini-batch size of Table 1 over its epochs."""

    key: RowKey
    label: str
    percent: Mapping[int, float]
    """Positive samples per 100 negative ones, by epoch."""


@dataclass(frozen=True)
class RatioTable:
    """Table 1."""

    title: str
    measures: Mapping[str, str]
    """What a ratio may mean, to the name that it has in a journal's epochs."""
    rows: tuple[RatioRow, ...]


@dataclass(frozen=True)
class Entry:
    """A row of the leaderboard (Table 4), in percent."""

    name: str
    mmAP: float
    mmAR: float
    note: str


def paper_table(number: int) -> PaperTable:
    """Table 2 or 3."""
    content = _read(f"table{number}")
    return PaperTable(number, content["title"], tuple(_row(row) for row in content["rows"]))


def ratio_table() -> RatioTable:
    """Table 1."""
    content = _read("table1")
    rows = (RatioRow(_key(row["ask"]), row["label"], row["paper"]) for row in content["rows"])
    return RatioTable(content["title"], content["measure"], tuple(rows))


def leaderboard() -> tuple[str, tuple[Entry, ...]]:
    """Table 4: its title and its entries."""
    content = _read("table4")
    rows = (Entry(row["label"], **row["paper"], note=row.get("note", "")) for row in content["rows"])
    return content["title"], tuple(rows)


def figure_rows(name: str) -> tuple[PaperRow, ...]:
    """What `figure1` or `figure4` shows, with the numbers that the paper's text and Table 3 give of it."""
    return tuple(_row(row) for row in _read(name)["rows"])


def measured(name: str) -> dict[str, str]:
    """What `name`, such as `table3`, shows of a run: by its heading, the name that it has in a journal's epochs."""
    found: dict[str, str] = _read(name)["measure"]
    return found


def epoch_beside(epoch: int, last: int) -> int | None:
    """The epoch of a schedule of `last` epochs that stands beside the paper's `epoch`; its last also one later."""
    if epoch <= last:
        return epoch
    return last if epoch == last + 1 else None


def key_of(run: RunRecord) -> RowKey:
    """The row that a run belongs to."""
    return run.batch, run.bn_size, run.schedule, run.lr_scale


def label_of(key: RowKey) -> str:
    """A row's name in the paper's manner."""
    batch, _, schedule, scale = key
    remarks = [] if schedule == "normal" else [schedule]
    if scale != 1:
        remarks.append("half learning rate" if scale == 0.5 else f"{scale:g}x learning rate")
    return str(batch) + (f" ({', '.join(remarks)})" if remarks else "")


def bn_label(bn_size: int) -> str:
    """`BN 16`, or `frozen BN`."""
    return f"BN {bn_size}" if bn_size else "frozen BN"


def row_name(key: RowKey) -> str:
    """A row's name where its BN size is not in a column beside: `256 (long), BN 16`."""
    return f"{label_of(key)}, {bn_label(key[1])}"


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((SWEEPS / f"{name}.yaml").read_text())
    return content


def _key(ask: Mapping[str, Any]) -> RowKey:
    return ask["batch"], ask["bn_size"], ask["schedule"], float(ask.get("lr.scale", 1))


def _row(row: dict[str, Any]) -> PaperRow:
    ask, paper = row["ask"], row["paper"]
    return PaperRow(
        key=_key(ask),
        label=row["label"],
        gpus=ask.get("gpus"),
        mmAP=None if paper["mmAP"] == "failed" else float(paper["mmAP"]),
        hours=paper.get("hours"),
    )
