"""Runs as data frames: one of runs, one of epochs and one of logged steps, from run folders or MLflow alike.

In a notebook:

    from megdet.analysis.frames import load_runs

    found = load_runs("runs", steps=("lr", "loss"))  # or "sqlite:///mlflow.db", "http://host:5000"
    found.runs.groupby(["batch", "bn_size"])["mmAP"].agg(["mean", "std", "count"])
    found.epochs.join(found.runs["batch"], on="run").pivot_table("mmAP", index="epoch", columns="batch")
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from megdet.analysis.records import Files, Records
from megdet.analysis.run_folders import from_run_folders
from megdet.analysis.setting_values import canonical, setting_text, typed
from megdet.errors import UserError
from megdet.runs.journal import SCORES
from megdet.settings.paths import expanded, fault_of_path
from megdet.settings.rules import shown
from megdet.tracking.uri import default_uri

EPOCHS = ("mmAP", "loss", "lr", "train_s", "eval_s")
"""What is read of each epoch unless asked otherwise; journals give all numbers of an epoch."""
STEPS = ("epoch", "lr", "loss")
"""What figures need of each step."""
FACTS = ("run_id", "experiment_id", "experiment", "status", "seed", "gpus", "device", "commit", "dirty")
"""What of a run can be asked for as if it were a setting."""
LR_SCALE = "lr.scale"
Value = str | int | float | bool
Wanted = Mapping[str, Sequence[str]]
"""By key, the values that runs are chosen by."""


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
        as_text = str if key in FACTS else setting_text
        return values.map(lambda value: () if value is None or value != value else (as_text(value),))

    def having(self, key: str, value: str) -> pd.Series:
        """Which runs have this value under `key`, as `texts` has keys; a commit's first characters are enough."""
        alike = {value, canonical(value)}
        begins = value if key == "commit" and value else None
        return (
            self.texts(key)
            .map(lambda own: any(text in alike or (begins is not None and text.startswith(begins)) for text in own))
            .astype(bool)
        )

    def there(self, key: str) -> str:
        """What the runs have under `key`, or which keys they have, for a message to who asked for something else."""
        values = sorted(set().union(*self.texts(key)))
        if values:
            return f"there is {key}={', '.join(values)}"
        tags = [column.removeprefix("tags.") for column in self.runs if column.startswith("tags.")]
        keys = ["sweep", *FACTS, *sorted({*self.settings, *tags})]
        if key in keys:
            return f"no run has a {key}"
        near = difflib.get_close_matches(key, keys, n=1)
        return f"no run has {key}" + (f"; did you mean {near[0]}?" if near else f"; there is {', '.join(keys)}")


def load_runs(
    source: str | None = None,
    /,
    *,
    epochs: Sequence[str] = EPOCHS,
    steps: Sequence[str] = (),
    **wanted: Value | Sequence[Value],
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


def select(frames: RunFrames, /, **wanted: Value | Sequence[Value]) -> RunFrames:
    """The runs with the wanted sweep, experiment, seed, ..., each once: with one of several values that are given.

    Keys are those of `RunFrames.texts`. If MLflow has a run in several experiments, the newest counts.
    UserError for a value that no run has.
    """
    for key, values in wanted.items():
        several = values if isinstance(values, Sequence) and not isinstance(values, str) else (values,)
        chosen = pd.Series(False, frames.runs.index)
        for text in map(setting_text, several):
            having = frames.having(key, text)
            if not having.any():
                raise UserError(f"{key}={text}: no such run; {frames.there(key)}")
            chosen |= having
        frames = frames.where(chosen)
    return frames.where(~frames.runs["run_id"].duplicated())


def settings_of(run: Mapping[str, Any], settings: Iterable[str]) -> dict[str, str]:
    """The settings of a run, as text."""
    return {key: setting_text(run[key]) for key in settings if not (run[key] is None or run[key] != run[key])}


def _with(frame: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """The frame with these columns at least, empty where nothing is there."""
    return frame.reindex(columns=[*dict.fromkeys((*columns, *frame))])
