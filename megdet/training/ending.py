"""The log of a rank, and its record of an error that ends it."""

from __future__ import annotations

import faulthandler
import logging
import sys
from dataclasses import replace

from megdet.errors import ExitCode, UserError
from megdet.planning.lighter import lighter_ask
from megdet.planning.plan import Plan
from megdet.runs.causes import CUDA_MEMORY, cause_of
from megdet.runs.failure import Failure
from megdet.runs.folder import LostOwnership, RunFolder
from megdet.runs.last_words import write_down
from megdet.training.terminal import terminal

log = logging.getLogger("megdet")


def start_log(folder: RunFolder, rank: int) -> None:
    """Log to the rank's file, and on rank 0 to who is watching (the others' standard error is that file already)."""
    handlers: list[logging.Handler] = [logging.StreamHandler(terminal())]
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
    if cause_of(failure) is CUDA_MEMORY and (ask := _lighter_ask(folder)):
        failure = replace(failure, reason=f"{failure.reason} What would fit: {ask}")
    try:
        write_down(folder, failure)
    except LostOwnership as lost:
        log.error("%s", lost)
    except OSError as full:  # the disk, most likely: the launcher, which may be on another, sees the exit code
        log.error("what ended rank %d could not be written down: %s", rank, full)
    return code


def _lighter_ask(folder: RunFolder) -> str | None:
    try:
        return lighter_ask(Plan.from_json(folder.plan.read_bytes()))
    except (OSError, UserError):
        return None
