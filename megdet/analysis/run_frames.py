"""Runs, their epochs and their steps as data frames (`megdet.analysis.frames` reads them)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from megdet.analysis.records import Files
from megdet.analysis.setting_values import NOT_SET, setting_text

FACTS = ("run_id", "experiment_id", "experiment", "status", "seed", "gpus", "device", "commit", "dirty")
"""What of a run can be asked for as if it were a setting."""


@dataclass(frozen=True)
class RunFrames:
    """Runs, their epochs and their logged steps. `run`, the index of `runs`, is a column of the other two."""

    runs: pd.DataFrame
    """One row a run:

    ================  ======  =========================================================================
    run_id            str     unique, but for a run that MLflow has in several experiments (`select`)
    experiment_id     str     the same for all seeds
    experiment        str     the MLflow experiment that the run belongs to
    status            str     finished or diverged (a result), new, queued, running, requeued, failed, interrupted, ...
    plan_sha256       str     of what was planned, as `megdet status --json` has it; may be empty
    reason            str     one line on why it is in that status; may be empty
    seed              int
    gpus              int     that it trained on; of a run that moved (`cluster.elastic`) the mean over its time: 2.67
    device            str     the GPU's name, or `CPU (its name)`; `a → b` where it moved; may be empty
    train_s           float   seconds of training so far, without evaluation
    commit            str     of the code of the last attempt
    commits           tuple   of the code that trained it, one after the other
    dirty             bool    whether the code differed from its commit, in any attempt
    code_sha256       str     of its source files, as `runs/.code` has them, `a → b` where they changed; may be empty
    data_sha256       str     the fingerprint of the data, `a → b` where it changed; may be empty
    weights_sha256    str     first 12 hex digits of the SHA-256 of the file that training began from
    sweeps            tuple   the names of the sweeps that asked for it
    folder            str     the run folder; empty from MLflow
    mlflow_run_id     str     MLflow's own id; empty from a folder
    batch, lr.scale,          every setting that decides the result, named as in YAML (`settings` has the names):
    model, ...                numbers and truth values where they are, else text; missing where not set
    mmAP, loss, ...   float   each number of an epoch, after the last one; missing unless the run has finished
    tags.NAME         str     its tags in MLflow
    ================  ======  =========================================================================
    """
    epochs: pd.DataFrame
    """One row for each epoch done: `run`, `epoch`, and its numbers: COCO's in percent, `train_s` (seconds until then),
    `loss`, `lr`, ..."""
    steps: pd.DataFrame
    """One row for each step that was logged: `run`, `step`, and the numbers of it that were asked for, such as `epoch`
    (a fraction), `lr` and `loss` (missing where not finite); empty where none was."""
    settings: tuple[str, ...]
    """The columns of `runs` that are settings."""
    fetch: Files = field(repr=False, default=lambda run, pattern: [])

    def where(self, chosen: pd.Series) -> RunFrames:
        """The runs that are `chosen` (true or false by run), with their epochs and steps."""
        runs = self.runs[chosen]
        epochs, steps = (frame[frame["run"].isin(runs.index)] for frame in (self.epochs, self.steps))
        return replace(self, runs=runs, epochs=epochs, steps=steps)

    def split(self, part: pd.Series) -> list[RunFrames]:
        """The runs split by the value of `part` for each run."""
        runs = dict(list(self.runs.groupby(part, sort=False)))
        epochs, steps = (dict(list(frame.groupby(frame["run"].map(part)))) for frame in (self.epochs, self.steps))
        nothing = self.epochs.iloc[:0], self.steps.iloc[:0]
        return [
            replace(self, runs=of_part, epochs=epochs.get(name, nothing[0]), steps=steps.get(name, nothing[1]))
            for name, of_part in runs.items()
        ]

    def files(self, run: int, pattern: str) -> list[Path]:
        """The run's files whose path in its folder fits a pattern (`pictures/*.png`); from MLflow they are fetched."""
        return self.fetch(self.runs.loc[run], pattern)

    def texts(self, key: str) -> pd.Series:
        """What each run has under `key`, as a tuple of texts: a fact, a setting, `sweep` or a tag of MLflow."""
        if key == "sweep":
            return self.runs["sweeps"]
        column = key if key in (*FACTS, *self.settings) else f"tags.{key}"
        values = self.runs[column] if column in self.runs else pd.Series(None, self.runs.index, dtype=object)
        nothing = (NOT_SET,) if key in self.settings else ()
        return values.map(lambda value: nothing if value is None or value != value else (setting_text(value),))


def settings_of(run: Mapping[str, Any], settings: Iterable[str]) -> dict[str, str]:
    """The settings of a run, as text."""
    return {key: setting_text(run[key]) for key in settings if not (run[key] is None or run[key] != run[key])}
