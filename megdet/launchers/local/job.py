"""Runs of this machine, known by the lock on their folder."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megdet.errors import UserError
from megdet.launchers.interface import Job
from megdet.launchers.local.lock import holder_of, is_locked
from megdet.runs.causes import Cause
from megdet.runs.folder import RunFolder
from megdet.runs.status import Stand, Status


@dataclass(frozen=True)
class LocalJob:
    """One run of this machine, under way or over."""

    folder: RunFolder

    def stand(self) -> Stand:
        state = self.folder.state()
        if state and state.status.is_result:
            return Stand(state.status, state.reason or "")
        if is_locked(self.folder):
            holder = holder_of(self.folder)
            return Stand(Status.RUNNING, "on this machine" if holder is None or holder.is_here else f"on {holder.host}")
        if state is None:
            return Stand(Status.NEW)
        if state.status == Status.RUNNING:
            return Stand(Status.INTERRUPTED, "its launcher is gone")
        return Stand(state.status, state.reason or "")

    def cancel(self) -> None:
        """As Ctrl-C would, with the runs that its launcher has not begun."""
        holder = holder_of(self.folder)
        if holder and not holder.is_here:
            raise UserError(f"it runs on {holder.host}; cancel it there")
        try:
            if holder is None:
                raise ProcessLookupError
            os.kill(holder.pid, signal.SIGTERM)
        except ProcessLookupError:
            raise UserError(
                "it runs on this machine, but which process started it is not known; stop that with Ctrl-C"
            ) from None

    @property
    def log(self) -> Path | None:
        return self.folder.launcher_log if self.folder.launcher_log.exists() else None

    def cause(self) -> Cause | None:
        """Nothing here knows more than the launcher has written into failure.json."""
        return None


class LocalJobs:
    """The jobs of this machine, found by their folders alone."""

    def find(self, folders: Sequence[RunFolder]) -> dict[RunFolder, Job]:
        return {folder: LocalJob(folder) for folder in folders if folder.state_file.exists() or is_locked(folder)}
