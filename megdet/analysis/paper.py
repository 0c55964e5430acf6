"""The numbers of the paper's tables and figures, from `sweeps/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

from megdet.analysis.asked import Asked, asked_settings, default_settings
from megdet.analysis.rows import KEY, RowKey
from megdet.analysis.table_spec import RowSpec, TableSpec, read_spec
from megdet.config.locations import SWEEPS
from megdet.config.sweep_file import read_sweep_file


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
    label: str
    measures: Mapping[str, str]
    """What a ratio may mean, to the name that it has in a journal's epochs."""
    rows: tuple[RatioRow, ...]


@cache
def paper_spec(name: str) -> TableSpec:
    """One of the paper's sweep files, such as `table3`.

    Its rows ask for every setting of KEY, by default the schema's value.
    """
    spec = read_spec(SWEEPS / f"{name}.yaml")
    rows = (row if row.asked is None else replace(row, asked=_usual() | row.asked) for row in spec.rows)
    return replace(spec, rows=tuple(rows))


@cache
def paper_rows(*names: str) -> tuple[PaperRow, ...]:
    """The rows of tables and figures, such as `table2` or `figure1`, in their order."""
    return tuple(_row(row) for name in names for row in paper_spec(name).rows)


@cache
def ratio_table() -> RatioTable:
    """Table 1: its file has the paper's numbers by epoch."""
    content = read_sweep_file(SWEEPS / "table1.yaml")
    rows = (
        RatioRow(key_of_asked(_usual() | asked_settings(row["ask"])), row["label"], row["paper"])
        for row in content["rows"]
    )
    return RatioTable(content["title"], content["label"], content["measure"], tuple(rows))


def epoch_beside(epoch: int, last: int) -> int | None:
    """The epoch of a schedule of `last` epochs that stands beside the paper's `epoch`; its last also one later."""
    if epoch <= last:
        return epoch
    return last if epoch == last + 1 else None


def _usual() -> dict[str, str | None]:
    return {key: default_settings()[key] for key in KEY}


def key_of_asked(asked: Asked) -> RowKey:
    """The key of the row that a row of the paper asks for."""
    batch, bn_size, schedule, scale = (asked[key] for key in KEY)
    return int(batch or 0), int(bn_size or 0), str(schedule), float(scale or 1)


def _row(row: RowSpec) -> PaperRow:
    mmAP, hours = (row.paper.get(heading) for heading in ("mmAP", "Time (h)"))
    return PaperRow(
        key=key_of_asked(row.asked or {}),
        label=row.label,
        gpus=row.gpus,
        mmAP=float(mmAP) if isinstance(mmAP, int | float) else None,
        hours=float(hours) if isinstance(hours, int | float) else None,
    )
