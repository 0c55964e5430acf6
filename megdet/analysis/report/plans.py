"""What each run was planned as, and how far it has come."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from megdet.analysis.runs import RunRecord
from megdet.analysis.tables import Row, Table, hours_text
from megdet.runs.folder import PLAN

COLUMNS = (
    "run", "state", "epochs", "Time (h)", "lr", "steps per epoch", "nodes", "# of GPUs", "images per GPU",
    "accumulation", "BN group (GPUs)", "sublinear",
)  # fmt: skip


def plans_table(runs: Sequence[RunRecord]) -> Table:
    """A row for each run, from its plan.json; what the plan has to say of its layout is in the notes."""
    states = Counter(run.state for run in runs)
    counts = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    with ThreadPoolExecutor(8) as pool:  # from MLflow each takes a request or two
        return Table("Plans", counts, COLUMNS, tuple(pool.map(_row, runs)), legend="")


def _row(run: RunRecord) -> Row:
    epochs = f"{len(run.epochs)} of {run.schedule_epochs}"
    hours = hours_text(run.train_s / 3600) if run.train_s else None
    files = run.files(PLAN)
    if not files:  # in MLflow from the first push on
        return Row((run.run_id, run.state, epochs, hours, *[None] * (len(COLUMNS) - 4)), (), (run.run_id,), (run,))
    plan: dict[str, Any] = json.loads(files[0].read_text())
    layout, schedule = plan["layout"], plan["schedule"]
    cells = (
        run.run_id,
        run.state,
        epochs,
        hours,
        f"{schedule['lr']:g}",
        str(schedule["steps_per_epoch"]),
        str(layout["nodes"]),
        str(layout["gpus"]),
        str(layout["images_per_gpu"]),
        str(layout["accumulation"]),
        str(layout["bn_group"]),
        "yes" if layout["sublinear"] else "no",
    )
    return Row(cells, tuple(plan["notes"]), (run.run_id,), (run,))
