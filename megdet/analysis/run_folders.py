"""Runs read from their folders, complete or not."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from megdet.analysis.records import Record, Records
from megdet.errors import UserError
from megdet.launchers.jobs import Jobs, Look
from megdet.planning.identity import plan_sha256_of, semantic_settings
from megdet.runs.folder import RunFolder, run_folders
from megdet.runs.journal import KINDS, read_journal
from megdet.runs.provenance import provenance_of
from megdet.runs.status import Status
from megdet.runs.sweep_folder import Sweep, sweep_folders

NO_NUMBERS = ["kind", "time"]
"""Of a journal's line, beside its numbers."""
Line = dict[str, Any]


def from_run_folders(source: Path, *, steps: Sequence[str]) -> Records:
    """The runs of a runs folder, with all numbers of their epochs, and of their steps with those that are asked for.

    Damaged ones are left out, with a line each on stderr; UserError if none is left.
    """
    folders = run_folders(source)
    sweeps, look = _sweeps(source), Jobs().look_at(folders)
    runs: list[Record] = []
    epochs: list[Line] = []
    of_steps: list[np.ndarray] = []
    for folder in folders:
        try:
            run, journal = _read(folder, sweeps, look, steps=bool(steps))
        except (UserError, OSError) as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        epochs += [{"run": len(runs), **line} for line in journal if line["kind"] == "epoch"]
        # At once an array: the lines of all runs would fill the memory.
        of_steps.append(_numbers([line for line in journal if line["kind"] == "step"], ("step", *steps)))
        runs.append(run)
    if not runs:
        raise UserError(f"{source}: none of its {len(folders)} runs can be read, for the reasons above")
    step_frame = pd.DataFrame(np.concatenate(of_steps), columns=["step", *steps]).astype({"step": int})
    step_frame.insert(0, "run", np.repeat(range(len(runs)), list(map(len, of_steps))))
    return Records(runs, pd.DataFrame(epochs).drop(columns=NO_NUMBERS, errors="ignore"), step_frame, _files)


def _read(
    folder: RunFolder, sweeps: Mapping[str, Sequence[str]], look: Look, *, steps: bool
) -> tuple[Record, list[Line]]:
    """A run and its journal. Raises UserError where a file of it is damaged."""
    plan = folder.read_plan()
    try:
        settings, planned_epochs = semantic_settings(plan), plan["schedule"]["epochs"]
    except UserError as error:
        raise UserError(f"{folder.path}: {error}") from None
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder.plan} is damaged ({error}); move the run folder away") from None
    # The journal last: of a run that has finished by now it is complete.
    stand, state = look.stand(folder), folder.state()
    journal = read_journal(folder, kinds=KINDS if steps else ("epoch", "event"))
    epochs = [line for line in journal if line["kind"] == "epoch"]
    stands, reason = stand.status, stand.why
    if stands == Status.FINISHED and [line["epoch"] for line in epochs] != list(range(1, planned_epochs + 1)):
        stands, reason = Status.FAILED, f"it finished, but its journal has {len(epochs)} of {planned_epochs} epochs"
    made_from = provenance_of(journal, plan)
    facts = {
        "run_id": plan["run_id"],
        "experiment_id": plan["experiment_id"],
        "experiment": plan["config"]["tracking"]["experiment"],
        "status": str(stands),
        "reason": reason,
        "plan_sha256": plan_sha256_of(plan),
        "seed": plan["config"]["seed"],
        "gpus": state.gpus(plan["layout"]["gpus"]) if state else plan["layout"]["gpus"],
        "train_s": state.train_s if state else 0.0,
        "commits": made_from.commits,
        "dirty": made_from.dirty,
        "code_sha256": made_from.code_sha256,
        "data_sha256": made_from.data_sha256,
        "weights_sha256": made_from.weights_sha256,
        "device": made_from.device,
        "sweeps": tuple(sweeps.get(plan["run_id"], ())),
        "folder": str(folder.path),
        "mlflow_run_id": "",
    }
    return Record(facts, settings, epochs[-1] if stands == Status.FINISHED else {}), journal


def _files(run: Mapping[str, Any], pattern: str) -> list[Path]:
    return sorted(Path(run["folder"]).glob(pattern))


def _numbers(lines: Sequence[Line], names: Sequence[str]) -> np.ndarray:
    """An array of a row for each line, NaN where it lacks a number."""
    try:
        rows: list[Any] = list(map(itemgetter(*names), lines))
    except KeyError:
        rows = [[line.get(name) for name in names] for line in lines]
    return np.array(rows, dtype=float).reshape(-1, len(names))


def _sweeps(folder: Path) -> dict[str, list[str]]:
    """By run id, the names of the sweeps that a runs folder knows of."""
    names: dict[str, list[str]] = {}
    for sweep in map(Sweep.read, sweep_folders(folder)):
        for run_id in sweep.run_ids:
            names.setdefault(run_id, []).append(sweep.name)
    return names
