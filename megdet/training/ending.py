"""A rank's log, and what it leaves behind when an error ends it."""

from __future__ import annotations

import faulthandler
import logging
import sys
from dataclasses import replace

from megdet.errors import ExitCode, UserError
from megdet.runs.failure import Failure
from megdet.runs.folder import LostOwnership, RunFolder
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.runs.times import now

log = logging.getLogger("megdet")


def start_log(folder: RunFolder, rank: int) -> None:
    """Log to the rank's file, and to standard error on rank 0 (the others' is that file already)."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if rank == 0:
        handlers.append(logging.FileHandler(folder.log(rank)))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=handlers)
    logging.captureWarnings(True)
    # What kills a process without an exception (a segmentation fault, an abort) leaves the lines that it was at.
    file = folder.log(rank).open("a") if rank == 0 else sys.stderr
    faulthandler.enable(file, all_threads=False)


def record_failure(folder: RunFolder, rank: int, error: Exception) -> ExitCode:
    """Leave failure.json (the first failing rank's) and the status `failed`; the rank's exit code."""
    if isinstance(error, UserError):
        code, reason = ExitCode.USER_ERROR, str(error)
        log.error("%s", reason)
    else:
        code, reason = ExitCode.RUN_FAILED, f"{type(error).__name__}: {error}"
        log.error("rank %d failed", rank, exc_info=error)
    failure = Failure.of_exception(error, rank=rank, reason=reason, log=folder.last_log_lines(rank))
    try:
        folder.release_room()
        if folder.write_first_failure(failure):
            state = folder.state() or RunState(Status.FAILED, attempts=1, started=now())
            folder.write_state(replace(state, status=Status.FAILED, ended=now(), reason=reason))
    except LostOwnership as lost:
        log.error("%s", lost)
    except OSError as full:  # the disk, most likely: the launcher, which may be on another, sees the exit code
        log.error("what ended rank %d could not be written down: %s", rank, full)
    return code
