"""Where an attempt resumes: the newest checkpoint that is intact, of its run, and covered by its journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from megdet.errors import UserError
from megdet.runs.folder import RunFolder
from megdet.runs.journal import bad_images_in, read_journal
from megdet.training.checkpoint import Checkpoint, DamagedCheckpoint

Line = Mapping[str, Any]


@dataclass(frozen=True)
class GoingOn:
    """Where an attempt begins, the same on all ranks."""

    path: Path | None
    """The checkpoint's file."""
    epochs: tuple[Line, ...] = ()
    """The journal's lines on the epochs up to there, which are trained, evaluated and recorded."""
    bad_images: Mapping[str, str] = field(default_factory=dict)
    """The files that could not be read up to there, from `data.root` on, with the reasons."""
    found: tuple[str, ...] = ()
    """What is not as it was left, a line each."""
    checkpoint: Checkpoint | None = None
    """None: it begins at the first step."""
    error: UserError | None = None
    """Why it cannot go on."""


def going_on(folder: RunFolder, run_id: str, *, steps_per_epoch: int, device: torch.device) -> GoingOn:
    """The checkpoint that an attempt at a run goes on from. Collective: rank 0 decides.

    An epoch whose line is missing is evaluated again from the checkpoint that ended it. Where the last checkpoint is
    beyond that, the one before it may not be: training is repeated from there.

    Raises:
        UserError: on every rank, where the run has made steps and no checkpoint of them can be used, or where the
            last one is of another run or version.
    """
    own: GoingOn | None = None
    decided: list[GoingOn | None] = [None]
    if dist.get_rank() == 0:
        try:
            own = _choose(folder, run_id, steps_per_epoch, device)
        except UserError as error:
            own = GoingOn(None, error=error)
        decided[0] = replace(own, checkpoint=None)
    dist.broadcast_object_list(decided, src=0, device=device)
    going = own or decided[0]
    assert going is not None, "rank 0 has decided"
    if going.error:
        raise going.error
    if going.path is None or going.checkpoint:
        return going
    checkpoint = Checkpoint.read(going.path, device, of_run=run_id)
    if checkpoint is None:
        raise UserError(f"rank 0 reads {going.path}, and rank {dist.get_rank()} does not see it: do nodes share it?")
    return replace(going, checkpoint=checkpoint)


def put_unused_aside(folder: RunFolder, going: GoingOn) -> None:
    """Rank 0, once all ranks have read: the next checkpoint must not keep a bad one as the previous one."""
    if going.path == folder.previous_checkpoint:
        folder.put_checkpoint_aside()


def _choose(folder: RunFolder, run_id: str, steps_per_epoch: int, device: torch.device) -> GoingOn:
    folder.check_checkpoint_is_there()
    found: list[str] = []
    lines = read_journal(folder)
    for path in (folder.checkpoint, folder.previous_checkpoint):
        try:
            checkpoint = Checkpoint.read(path, device, of_run=run_id)
        except DamagedCheckpoint as error:
            found.append(str(error))
            continue
        if checkpoint is None:
            if folder.previous_checkpoint.exists():
                found.append(f"{path} is missing")
            continue
        step = checkpoint.state.step
        epochs = _epochs_up_to(step, lines, steps_per_epoch)
        if missing := _missing(step, epochs, steps_per_epoch):
            numbers = ", ".join(map(str, missing))
            found.append(f"{folder.journal} lacks epoch {numbers}, and {path.name} is beyond that (step {step})")
            continue
        if found:
            found.append(f"it goes on from {path.name}, step {step}")
        recorded = sum(line["kind"] == "step" and line["step"] <= step for line in lines)
        if recorded < checkpoint.state.steps_recorded:
            lost = checkpoint.state.steps_recorded - recorded
            found.append(f"{folder.journal} has lost {lost} lines on single steps; curves over steps have a gap")
        recorded_epochs = tuple(epochs[epoch] for epoch in sorted(epochs))
        return GoingOn(path, recorded_epochs, bad_images_in(lines, step), tuple(found), checkpoint)
    if not found and any(line["kind"] == "epoch" for line in lines):
        found.append(f"{folder.checkpoint} is missing, and {folder.journal} has epochs that it made")
    if found:
        raise UserError(
            f"{'; '.join(found)}: put a good copy in its place, or begin the run anew with sweep.on_existing=force"
        )
    return GoingOn(None)  # there never was one


def _epochs_up_to(step: int, lines: Sequence[Line], steps_per_epoch: int) -> dict[int, Line]:
    """The lines on epochs up to a step, by number: those that say what this schedule would."""
    return {
        line["epoch"]: line
        for line in lines
        if line["kind"] == "epoch" and line["step"] <= step and line["step"] == line["epoch"] * steps_per_epoch
    }


def _missing(step: int, epochs: Mapping[int, Line], steps_per_epoch: int) -> list[int]:
    """The epochs without a line that a checkpoint at `step` is beyond; the one that ends there can be evaluated."""
    return [epoch for epoch in range(1, -(-step // steps_per_epoch)) if epoch not in epochs]
