"""The number that a run is judged by, for sweepers that look for the best."""

from __future__ import annotations

from megdet.errors import UserError
from megdet.launchers.local import run_folder
from megdet.runs.journal import read_journal
from megdet.sweep.points import DONE, Point


def final_mmap(point: Point) -> float:
    """The mmAP after the last epoch; 0 where training diverged. Raises UserError where there is no result."""
    if point.plan is None or point.state not in DONE:
        raise UserError(f"{' '.join(point.asked.overrides)}: {point.state}" + (f" ({point.why})" if point.why else ""))
    if point.state == "diverged":
        return 0.0
    epochs = [line for line in read_journal(run_folder(point.plan)) if line["kind"] == "epoch"]
    return float(epochs[-1]["mmAP"] or 0.0)
