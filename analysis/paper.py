"""The rows of the paper's tables, from the files in `sweeps/`: what each asks for and the paper's numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from analysis.runs import RunRecord

SWEEPS = Path(__file__).resolve().parents[1] / "sweeps"

RowKey = tuple[int, int, str, float]
"""batch, bn_size, schedule, lr.scale: what makes a row; GPUs do not."""


@dataclass(frozen=True)
class PaperRow:
    """One row of a table of the paper."""

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


def paper_table(number: int) -> PaperTable:
    """Table 2 or 3."""
    content = yaml.safe_load((SWEEPS / f"table{number}.yaml").read_text())
    return PaperTable(number, content["title"], tuple(_row(row) for row in content["rows"]))


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


def _row(row: dict[str, Any]) -> PaperRow:
    ask, paper = row["ask"], row["paper"]
    return PaperRow(
        key=(ask["batch"], ask["bn_size"], ask["schedule"], float(ask.get("lr.scale", 1))),
        label=row["label"],
        gpus=ask.get("gpus"),
        mmAP=None if paper["mmAP"] == "failed" else float(paper["mmAP"]),
        hours=paper.get("hours"),
    )
