"""Runs as data frames: one of runs, one of epochs and one of logged steps, from run folders or MLflow alike.

In a notebook:

    from megdet.analysis.frames import load_runs

    found = load_runs("runs", steps=("lr", "loss"))  # or "sqlite:///mlflow.db", "http://host:5000"
    found.runs.groupby(["batch", "bn_size"])["mmAP"].agg(["mean", "std", "count"])
    found.epochs.join(found.runs["batch"], on="run").pivot_table("mmAP", index="epoch", columns="batch")
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from megdet.analysis.records import Records
from megdet.analysis.run_folders import from_run_folders
from megdet.analysis.run_frames import RunFrames
from megdet.analysis.setting_values import typed
from megdet.analysis.wanted import select
from megdet.errors import UserError
from megdet.runs.journal import SCORES
from megdet.settings.paths import expanded, fault_of_path
from megdet.settings.rules import shown
from megdet.tracking.uri import default_uri

EPOCHS = ("mmAP", "loss", "lr", "train_s", "eval_s")
"""What is read of each epoch unless asked otherwise; journals give all numbers of an epoch."""
STEPS = ("epoch", "lr", "loss")
"""What figures need of each step."""
LR_SCALE = "lr.scale"


def load_runs(
    source: str | None = None,
    /,
    *,
    epochs: Sequence[str] = EPOCHS,
    steps: Sequence[str] = (),
    **wanted: Any,
) -> RunFrames:
    """The runs of a runs folder or an MLflow store, each once, by run id; UserError where there are none.

    `source` is a folder, or an MLflow URI (`sqlite:///...`, `http://...`). None: ./runs if it exists, else
    MLFLOW_TRACKING_URI, else ./mlflow.db. `epochs` and `steps` are the numbers of epochs and of steps that are needed:
    from MLflow each costs time, and steps do from folders too. `wanted`: as `select` takes it (`seed=(0, 1)`).
    """
    return select(read_runs(source, epochs=epochs, steps=steps), **wanted)


def read_runs(source: str | None = None, *, epochs: Sequence[str] = EPOCHS, steps: Sequence[str] = ()) -> RunFrames:
    """As `load_runs`, but a run that MLflow has in several experiments is there for each, the newest first."""
    if source is None:
        source = "runs" if Path("runs").is_dir() else default_uri(Path.cwd())
    if "://" in source:
        from megdet.analysis.mlflow_runs import from_mlflow  # loads MLflow: seconds

        records = from_mlflow(source, epochs=epochs, steps=steps)
    else:
        if instead := fault_of_path(source):
            raise UserError(f"--from {shown(source)}: use {instead}")
        records = from_run_folders(expanded(source), steps=steps)
    return frames_of(records, epochs=epochs, steps=steps)


def frames_of(records: Records, *, epochs: Iterable[str] = EPOCHS, steps: Iterable[str] = ()) -> RunFrames:
    """Data frames of what was read, with all of these numbers of epochs and steps as columns."""
    facts = pd.DataFrame([run.facts for run in records.runs])
    # A run that moved has a fraction of a GPU; the others' numbers stay whole.
    gpus = pd.Series([run.facts["gpus"] for run in records.runs], dtype=object)
    facts = facts.assign(
        gpus=gpus.infer_objects() if all(isinstance(count, int) for count in gpus) else gpus,
        commit=facts["commits"].str[-1],
        status=facts["status"],
        train_s=facts["train_s"].astype(float),
    )
    settings = _with(pd.DataFrame([run.settings for run in records.runs]), [LR_SCALE]).apply(typed)
    settings[LR_SCALE] = settings[LR_SCALE].fillna(1.0).astype(float)
    final = pd.DataFrame([run.final for run in records.runs], index=facts.index)
    final = _with(final, SCORES).drop(columns=[*facts, "epoch", "step", "kind", "time"], errors="ignore")
    tags = pd.DataFrame([run.tags for run in records.runs], index=facts.index).add_prefix("tags.")
    runs = pd.concat([facts, settings, final.astype(float), tags], axis=1).rename_axis("run")
    return RunFrames(
        runs.sort_values("run_id", kind="stable"),
        _with(records.epochs, ("run", "epoch", *EPOCHS, *epochs)),
        _with(records.steps, ("run", "step", *STEPS, *steps)),
        tuple(settings),
        records.files,
    )


def _with(frame: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """The frame with these columns at least, empty where nothing is there."""
    return frame.reindex(columns=[*dict.fromkeys((*columns, *frame))])
