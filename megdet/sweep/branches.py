"""Branches of a run: its last weights, trained on at other batches over the same images (`megdet advise --branch`)."""

from __future__ import annotations

import contextlib
import copy
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from megdet.config.schema import Config
from megdet.errors import ExitCode, UserError
from megdet.planning.plan import make_plan
from megdet.runs.folder import RunFolder
from megdet.runs.journal import read_journal
from megdet.runs.run_files import PLAN
from megdet.runs.status import Status


@dataclass(frozen=True)
class Branch:
    """The run trained on at another batch."""

    run: str
    batch: int
    epochs: int
    steps: int
    status: str
    loss: float | None
    """Mean over the last epoch."""
    mmAP: float | None


def at_batch(config: Config, batch: int) -> Config:
    """The run's experiment at another batch, on as many GPUs as were asked for."""
    config = copy.deepcopy(config)
    if batch != config.batch:
        config.batch, config.images_per_gpu = batch, "auto"
    return config


def train_branches(folder: RunFolder, config: Config, batches: Sequence[int], epochs: int) -> ExitCode:
    """Train what is not there yet, on this machine. `epochs`: of each."""
    # Imported here: a table alone needs no launcher.
    from megdet.config.experiments import Asked
    from megdet.config.sweep import SweepSettings
    from megdet.sweep.sweep import run_points

    state = folder.state()
    factor = 1.0
    schedule = make_plan(config).schedule
    for step, own in schedule.milestones:
        if state and state.step > step:
            factor *= own
    asked = []
    for batch in batches:
        branch = at_batch(config, batch)
        branch.runs_dir = str(folder.path.parent)
        branch.model.init_from, branch.model.init_sha256 = str(folder.path.absolute()), None
        branch.schedule = replace(branch.schedule, epochs=epochs, milestones=[], factors=[], warmup_epochs=0.0)
        branch.schedule.warmup_images = None
        branch.lr.scale *= factor
        branch.sweep = SweepSettings()
        asked.append(Asked((f"batch={batch}",), branch))
    with contextlib.redirect_stdout(sys.stderr):  # what the runs say
        return run_points(asked)


def branches_of(folder: RunFolder, config: Config) -> list[Branch]:
    """The runs beside it that began from its weights and differ in the batch."""
    found = []
    for path in sorted(folder.path.parent.glob(f"*/{PLAN}")):
        branch = RunFolder(path.parent)
        try:
            plan = json.loads(path.read_text())
            own = plan["config"]
            begun = own["model"]["init_from"]
            alike = own["bn_size"] == config.bn_size and not own["schedule"]["milestones"]
            if begun is None or Path(begun).name != folder.name or not alike:
                continue
            state, lines = branch.state(), read_journal(branch, kinds=("epoch",))
            last = lines[-1] if lines else {}
            found.append(
                Branch(
                    branch.name,
                    batch=own["batch"],
                    epochs=own["schedule"]["epochs"],
                    steps=plan["schedule"]["steps_per_epoch"] * own["schedule"]["epochs"],
                    status=str(state.status if state else Status.NEW),
                    loss=last.get("loss"),
                    mmAP=last.get("mmAP"),
                )
            )
        except (UserError, ValueError, TypeError, KeyError):
            continue  # damaged, or of another version: it says nothing that can be used here
    return sorted(found, key=lambda one: (one.epochs, one.batch, one.run))
