"""The plan of each run, and how far the run has come."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd

from megdet.analysis.cells import Cell, hours
from megdet.analysis.run_frames import RunFrames
from megdet.analysis.table import Column, Kind, Row, Table, table_of
from megdet.runs.run_files import PLAN

PLANNED = {
    "lr": ("schedule", "lr"), "steps per epoch": ("schedule", "steps_per_epoch"), "nodes": ("layout", "nodes"),
    "# of GPUs": ("layout", "gpus"), "images per GPU": ("layout", "images_per_gpu"),
    "accumulation": ("layout", "accumulation"), "BN group (GPUs)": ("layout", "bn_group"),
    "sublinear": ("layout", "sublinear"),
}  # fmt: skip
"""Headings, and where a plan.json has what is below them."""
COLUMNS = (
    Column("run", Kind.NAMING), Column("model", Kind.FACT), Column("data", Kind.FACT), Column("status", Kind.FACT),
    Column("epochs", Kind.FACT),
    Column("Time", Kind.MEASURED, hours, unit="h"), *(Column(heading, Kind.FACT) for heading in PLANNED),
)  # fmt: skip


def plans_table(frames: RunFrames) -> Table:
    """A row for each run, from its plan.json; what the plan has to say of its layout is in the notes."""
    runs = frames.runs
    runs = runs.assign(epochs_done=frames.epochs.groupby("run").size().reindex(runs.index, fill_value=0))
    counts = ", ".join(f"{count} {status}" for status, count in runs["status"].value_counts().sort_index().items())
    with ThreadPoolExecutor(8) as pool:  # from MLflow each takes a request or two
        rows = list(pool.map(lambda run: _row(frames, runs.loc[[run]]), runs.index))
    return table_of("Plans", counts, COLUMNS, rows, legend="", label="plans")


def _row(frames: RunFrames, run: pd.DataFrame) -> Row:
    ((index, facts),) = run.iterrows()
    epochs = f"{facts['epochs_done']} of {facts['schedule.epochs']}"
    cells: list[Cell] = [*facts[["run_id", "model", "data", "status"]], epochs, facts["train_s"] / 3600 or None]
    files = frames.files(index, PLAN)
    if not files:  # in MLflow from the first push on
        return Row((facts["run_id"],), [*cells, *[None] * len(PLANNED)], (), run)
    plan: dict[str, Any] = json.loads(files[0].read_text())
    planned = [plan[part][name] for part, name in PLANNED.values()]
    words = [("yes" if value else "no") if isinstance(value, bool) else value for value in planned]
    return Row((facts["run_id"],), [*cells, *words], tuple(plan["notes"]), run)
