"""What each run of a folder was planned as, and how far it has come."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.runs import RunRecord
from analysis.tables import Row, Table, hours_text
from megdet.tracking.journal import PLAN

COLUMNS = (
    "run", "state", "epochs", "Time (h)", "lr", "steps per epoch", "nodes", "# of GPUs", "images per GPU",
    "accumulation", "BN group (GPUs)", "sublinear",
)  # fmt: skip


def plans_table(folder: Path, runs: Sequence[RunRecord]) -> Table:
    """A row for each run, from its plan.json; what the plan has to say of its layout is in the notes."""
    states = Counter(run.state for run in runs)
    counts = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    return Table("Plans", counts, COLUMNS, tuple(_row(folder, run) for run in runs))


def _row(folder: Path, run: RunRecord) -> Row:
    plan: dict[str, Any] = json.loads((folder / run.run_id / PLAN).read_text())
    layout, schedule = plan["layout"], plan["schedule"]
    cells = (
        run.run_id,
        run.state,
        f"{len(run.epochs)} of {schedule['epochs']}",
        hours_text(run.train_s / 3600) if run.train_s else None,
        f"{schedule['lr']:g}",
        str(schedule["steps_per_epoch"]),
        str(layout["nodes"]),
        str(layout["gpus"]),
        str(layout["images_per_gpu"]),
        str(layout["accumulation"]),
        str(layout["bn_group"]),
        "yes" if layout["sublinear"] else "no",
    )
    return Row(cells, "; ".join(note.replace("; ", ", ") for note in plan["notes"]), (run.run_id,), (run,))
