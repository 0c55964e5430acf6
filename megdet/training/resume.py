"""From where an attempt goes on: the newest checkpoint of its run that is whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from megdet.errors import UserError
from megdet.runs.folder import RunFolder
from megdet.training.checkpoint import Checkpoint, DamagedCheckpoint

WAY_OUT = "put a good copy in its place, or begin the run anew with sweep.on_existing=force"


@dataclass(frozen=True)
class GoingOn:
    """Where an attempt begins, the same on all ranks."""

    checkpoint: Checkpoint | None
    """None: at the first step."""
    found: str = ""
    """What was wrong with a newer checkpoint; empty where nothing was."""


@dataclass(frozen=True)
class _Choice:
    """What rank 0 has decided."""

    path: Path | None
    found: str = ""
    error: UserError | None = None


def going_on(folder: RunFolder, run_id: str, device: torch.device) -> GoingOn:
    """The checkpoint that an attempt at a run goes on from. Collective: rank 0 decides.

    Raises:
        UserError: on every rank, where the run has made steps and no checkpoint of them can be used, or where the
            last one is of another run or version.
    """
    checkpoint: Checkpoint | None = None
    choices: list[_Choice | None] = [None]
    if dist.get_rank() == 0:
        choices[0], checkpoint = _choose(folder, run_id, device)
    dist.broadcast_object_list(choices, src=0, device=device)
    (choice,) = choices
    assert choice is not None, "rank 0 has decided"
    if choice.error:
        raise choice.error
    if choice.path and checkpoint is None:
        checkpoint = Checkpoint.read(choice.path, device, of_run=run_id)
        if checkpoint is None:
            raise UserError(
                f"rank 0 reads {choice.path}, and rank {dist.get_rank()} does not see it: do nodes share it?"
            )
    return GoingOn(checkpoint, choice.found)


def put_damaged_aside(folder: RunFolder, going: GoingOn) -> None:
    """Rank 0, once all ranks have read: the next checkpoint must not keep a damaged one as the previous one."""
    if going.found:
        folder.put_checkpoint_aside()


def _choose(folder: RunFolder, run_id: str, device: torch.device) -> tuple[_Choice, Checkpoint | None]:
    found: list[str] = []
    try:
        folder.check_checkpoint_is_there()
        for path in (folder.checkpoint, folder.previous_checkpoint):
            try:
                checkpoint = Checkpoint.read(path, device, of_run=run_id)
            except DamagedCheckpoint as error:
                found.append(str(error))
                continue
            if checkpoint:
                said = f"{'; '.join(found)}; it goes on from {path.name}, step {checkpoint.state.step}" if found else ""
                return _Choice(path, said), checkpoint
            if folder.previous_checkpoint.exists():
                found.append(f"{path} is missing")
    except UserError as error:
        return _Choice(None, error=error), None
    if found:
        return _Choice(None, error=UserError(f"{'; '.join(found)}: {WAY_OUT}")), None
    return _Choice(None), None  # there never was one
