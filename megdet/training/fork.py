"""A run that begins with the epochs of another one: it takes over its checkpoint, journal and pictures.

What it then finds in its folder is what it would have left there itself, so that it goes on as any run that was
interrupted. Nothing else of training knows of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from megdet.errors import UserError
from megdet.planning.fork import shared_epochs
from megdet.planning.plan import Plan, earlier_plan
from megdet.runs.files import replace_file
from megdet.runs.folder import RunFolder
from megdet.runs.journal import FORKED, read_journal, text_of
from megdet.runs.provenance import data_recorded
from megdet.runs.status import Status
from megdet.training.checkpoint import Checkpoint

OF_ITS_END = frozenset((*Status, "requeued"))
"""Events that tell how an attempt at the other run ended."""


def take_over(plan: Plan, folder: RunFolder, *, data_sha256: str) -> str:
    """Rank 0: put the epochs of `plan.fork` into the folder of a run that has not begun; why not, where that fails.

    Empty where it is done, or nothing is to do. The checkpoint comes last: until it is there, the run has not begun.
    """
    if plan.fork is None or folder.has_begun:
        return ""
    source = RunFolder(folder.path.parent / plan.fork.run_id)
    try:
        checkpoint = _checkpoint_of(source, plan)
        lines = _lines_of(source, plan, upto=checkpoint.state.step)
        recorded = data_recorded(source)
        if recorded != data_sha256:
            raise UserError(f"it was trained on other data (data_sha256 {recorded or 'not recorded'})")
        shared_s = _seconds(checkpoint, lines)
        _take_pictures(source, folder, upto=plan.fork.epoch)
    except (UserError, OSError) as error:
        return f"trains from the first epoch, not from epoch {plan.fork.epoch} of {plan.fork.run_id}: {error}"
    step, epoch = checkpoint.state.step, plan.fork.epoch
    forked = {"kind": "event", "event": FORKED, "step": step, "run": source.name, "epochs": epoch}
    folder.check_owner()
    replace_file(folder.journal, text_of([*lines, forked]))
    state = replace(checkpoint.state, shared_s=shared_s, gpus=plan.layout.gpus, moved_s=shared_s, moved_gpu_s=0.0)
    replace(checkpoint, run_id=plan.run_id, state=state).write(folder.checkpoint, before=folder.check_owner)
    return ""


def _checkpoint_of(source: RunFolder, plan: Plan) -> Checkpoint:
    """The other run's, of the end of the epoch. Raises UserError where there is none that this run would have made."""
    assert plan.fork is not None
    epoch, step = plan.fork.epoch, plan.fork.epoch * plan.schedule.steps_per_epoch
    if not source.exists:
        raise UserError(f"{source.path} is no run")
    if shared_epochs(earlier_plan(source.plan.read_text()), plan) < epoch:
        raise UserError("its plan is another one by now, and shares fewer epochs")
    for path in (source.kept_checkpoint(epoch), source.checkpoint):
        checkpoint = Checkpoint.read(path, torch.device("cpu"), of_run=source.name)
        if checkpoint and checkpoint.state.step == step:
            return checkpoint
    state = source.state()
    raise UserError(f"it has no checkpoint of that epoch ({state.status if state else 'never started'})")


def _lines_of(source: RunFolder, plan: Plan, *, upto: int) -> list[dict[str, Any]]:
    """The journal's lines of the shared steps. Raises UserError where one on an epoch is missing."""
    assert plan.fork is not None
    lines = [line for line in read_journal(source) if line["step"] <= upto and line.get("event") not in OF_ITS_END]
    # This run's last evaluation is its own: it draws pictures of what was found.
    last = plan.schedule.epochs
    lines = [line for line in lines if line["kind"] != "epoch" or line["epoch"] < last]
    found = {line["epoch"] for line in lines if line["kind"] == "epoch"}
    missing = [str(epoch) for epoch in range(1, plan.fork.epoch) if epoch not in found]
    if missing:
        raise UserError(f"its journal lacks epoch {', '.join(missing)}")
    return lines


def _seconds(checkpoint: Checkpoint, lines: Sequence[Mapping[str, Any]]) -> float:
    """Of training and evaluation in what is taken over."""
    ends = [line for line in lines if line["kind"] == "epoch" and line["step"] == checkpoint.state.step]
    return float(ends[0]["train_s"] + ends[0]["eval_s"]) if ends else checkpoint.state.train_s + checkpoint.state.eval_s


def _take_pictures(source: RunFolder, folder: RunFolder, *, upto: int) -> None:
    """The proposals of the shared epochs."""
    for epoch in range(1, upto + 1):
        for picture in source.pictures.glob(f"proposals-epoch{epoch:02}-*"):
            folder.pictures.mkdir(exist_ok=True)
            shutil.copyfile(picture, folder.pictures / picture.name)
