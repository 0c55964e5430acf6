"""A run's folder: who may write into it, and what they write."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megdet.config.locations import LAUNCH
from megdet.errors import UserError
from megdet.runs.classes import Classes
from megdet.runs.failure import Failure
from megdet.runs.files import forget_unfinished, json_text, replace_file
from megdet.runs.run_files import (
    CANARY,
    CLASSES,
    FAILURE,
    OWNER,
    PLAN,
    RESERVE,
    RESERVE_BYTES,
    UNUSED_CHECKPOINT,
    WAITING,
)
from megdet.runs.run_records import RunRecords
from megdet.runs.state import RunState
from megdet.runs.status import Status

if TYPE_CHECKING:
    from megdet.planning.plan import Plan


class LostOwnership(Exception):
    """Another attempt owns the run's folder now: this one must end without touching a file."""


@dataclass(frozen=True)
class RunFolder(RunRecords):
    """The folder of one run. Reading is for everybody; writing is for the attempt that owns it (`owned_by`)."""

    owner: str | None = None
    """The attempt that writes through this object; None: a reader, or a tool that adds files of its own."""

    def owned_by(self, attempt: str) -> RunFolder:
        """The folder as `attempt` writes it. The attempt must have claimed it, or its launcher for it."""
        return RunFolder(self.path, attempt)

    def claim(self, attempt: str) -> RunFolder:
        """Make `attempt` the folder's owner; whoever owned it cannot write any more. The folder is made if need be."""
        self.path.mkdir(parents=True, exist_ok=True)
        replace_file(self.path / OWNER, json_text({"attempt": attempt}))
        owned = self.owned_by(attempt)
        owned._reopen()
        return owned

    def _reopen(self) -> None:
        """A result whose records are lost is none any more: the run goes on."""
        state = self.state()
        lost = self.lost_records(state) if state and state.status.is_result else ""
        if state and lost:
            self.write_state(replace(state, status=Status.INTERRUPTED, reason=lost, journal_bytes=None))

    def check_owner(self) -> None:
        """Raises LostOwnership where another attempt owns the folder by now; asked before every write."""
        current = self.current_owner()
        if self.owner is None or current != self.owner:
            raise LostOwnership(f"{self.path} belongs to attempt {current}, not to {self.owner}")

    def write_canary(self, values: Mapping[str, Any]) -> None:
        self.check_owner()
        replace_file(self.path / CANARY, json_text(values))

    def write_plan(self, text: str) -> None:
        self.check_owner()
        replace_file(self.plan, text)

    def write_state(self, state: RunState) -> None:
        self.check_owner()
        replace_file(self.state_file, json_text(state.to_json()))

    def write_classes(self, classes: Classes) -> None:
        self.check_owner()
        replace_file(self.path / CLASSES, json_text(classes.to_json()))

    def write_failure(self, failure: Failure) -> None:
        """Replace whatever failure there is."""
        self.check_owner()
        replace_file(self.failure_file, json_text(failure.to_json()))

    def write_first_failure(self, failure: Failure) -> bool:
        """Write the failure unless there is one: ranks that fail later only tell that the first is gone."""
        self.check_owner()
        complete = self.path / f".{FAILURE}.rank{failure.rank}"
        replace_file(complete, json_text(failure.to_json()))
        try:
            os.link(complete, self.failure_file)  # fails where the name is taken, and is never seen half-written
        except FileExistsError:
            return False
        except OSError:  # a file system without links: the first to fail is not told from the second
            complete.replace(self.failure_file)
        finally:
            complete.unlink(missing_ok=True)
        return True

    def keep_checkpoint(self) -> None:
        """A new checkpoint is about to take the place of the last one, which becomes the previous one."""
        self.check_owner()
        if self.checkpoint.exists():
            self._name_checkpoint(self.previous_checkpoint, without_links=os.replace)

    def keep_checkpoint_of(self, epoch: int) -> None:
        """The last checkpoint has ended an epoch that other runs go on from: it stays under a name of its own."""
        self.check_owner()
        self._name_checkpoint(self.kept_checkpoint(epoch), without_links=shutil.copyfile)

    def _name_checkpoint(self, kept: Path, *, without_links: Callable[[Path, Path], object]) -> None:
        """Make the last checkpoint known as `kept` too, and remove what writers that were killed have left of that."""
        forget_unfinished(kept)
        unfinished = self.path / f".{kept.name}.{secrets.token_hex(4)}"
        try:
            os.link(self.checkpoint, unfinished)
        except OSError:  # a file system without links
            without_links(self.checkpoint, unfinished)
        unfinished.replace(kept)
        unfinished.unlink(missing_ok=True)  # rename(2) leaves it there where both are names of one file already

    def forget_previous_checkpoint(self) -> None:
        """The run has finished: its last checkpoint is all that anybody wants."""
        self.check_owner()
        self.previous_checkpoint.unlink(missing_ok=True)

    def forget_checkpoints(self) -> None:
        """The run has ended, and nobody goes on from it or looks into what it has learned."""
        for path in self.path.glob("*checkpoint*.pt*"):
            path.unlink(missing_ok=True)

    def put_checkpoint_aside(self) -> None:
        """The last checkpoint cannot be used and must not become the previous one; it is kept for who looks into it."""
        self.check_owner()
        if self.checkpoint.exists():
            self.checkpoint.replace(self.path / UNUSED_CHECKPOINT)

    def write_meeting(self, values: Mapping[str, Any]) -> None:
        self.check_owner()
        replace_file(self.meeting, json_text(values))

    def reserve_room(self) -> None:
        """Keep room for the last words of an attempt that finds the disk full."""
        self.check_owner()
        if not (self.path / RESERVE).exists():
            replace_file(self.path / RESERVE, secrets.token_hex(RESERVE_BYTES // 2))

    def release_room(self) -> None:
        """The attempt is over, or needs the room."""
        self.check_owner()
        (self.path / RESERVE).unlink(missing_ok=True)

    def forget_failure(self) -> None:
        self.check_owner()
        self.failure_file.unlink(missing_ok=True)

    def forget_submission(self) -> None:
        """The run is this attempt's now, not that of a job that it was handed to before."""
        self.check_owner()
        self.submission_file.unlink(missing_ok=True)

    def note_waiting(self, values: Mapping[str, Any]) -> None:
        """Launchers note it before a canary's job is there."""
        self.path.mkdir(parents=True, exist_ok=True)
        replace_file(self.path / WAITING, json_text(values))

    def write_study(self, name: str, found: Mapping[str, Any]) -> None:
        """Studies add files of their own beside the attempt's, which they leave alone."""
        replace_file(self.path / name, json_text(found))

    def note_submission(self, launcher: str, values: Mapping[str, Any]) -> None:
        """Launchers note jobs, and what became of them, beside the attempt that runs."""
        replace_file(self.submission_file, json_text({"launcher": launcher, **values}))


def run_folder(runs_dir: str | Path, run_id: str) -> RunFolder:
    """Where a run keeps everything."""
    return RunFolder(Path(runs_dir) / run_id)


def folder_of(plan: Plan) -> RunFolder:
    """Where a plan's run keeps everything."""
    return run_folder(plan.config.runs_dir, plan.run_id)


def run_folders(runs: Path) -> list[RunFolder]:
    """The run folders (those with a plan) in `runs`, by name. Raises UserError where there is none."""
    folders = [RunFolder(path.parent) for path in sorted(runs.glob(f"*/{PLAN}"))]
    if folders:
        return folders
    if runs.is_file():
        way_out = f"as an MLflow database it is sqlite:///{runs}" if runs.suffix == ".db" else "name a folder of runs"
        raise UserError(f"{runs} is no folder; {way_out}")
    missing = f"has no run (a folder with a {PLAN})" if runs.is_dir() else "does not exist"
    raise UserError(f"{runs} {missing}; name another folder, or start a run with `{LAUNCH}`")
