"""The objective of a run, for sweepers that optimise."""

from __future__ import annotations

from collections.abc import Sequence

from megdet.errors import UserError
from megdet.runs.folder import folder_of
from megdet.runs.journal import read_journal
from megdet.runs.status import Status
from megdet.sweep.points import Point


def final_mmap(point: Point) -> float:
    """The mmAP after the last epoch; 0 where training diverged. Raises UserError where there is no result."""
    if point.plan is None or point.status is None or not point.status.is_result:
        raise UserError(f"{' '.join(point.asked.overrides)}: {point.shown}" + (f" ({point.why})" if point.why else ""))
    if point.status == Status.DIVERGED:
        return 0.0
    epochs = [line for line in read_journal(folder_of(point.plan)) if line["kind"] == "epoch"]
    return float(epochs[-1]["mmAP"] or 0.0)


def with_repeated(points: Sequence[Point]) -> list[Point]:
    """The points, and in place of one that repeats another that other: they are one run with one result."""
    by_run = {point.plan.run_id: point for point in points if point.plan and point.status}
    return [by_run[point.plan.run_id] if point.plan else point for point in points]
