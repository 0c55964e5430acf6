"""How a rank comes to an end that is not its own: asked to stop, or failed."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from megdet.errors import UserError
from megdet.runs.journal import RunState

FAILURE = "failure.json"
CHECKPOINT = "checkpoint.pt"
LAST_LOG_LINES = 40

log = logging.getLogger("megdet")


def log_file(folder: Path, rank: int) -> Path:
    """Where a rank's log lies."""
    return folder / f"log-rank{rank}.txt"


def start_log(folder: Path, rank: int) -> None:
    """Log to the rank's file, and to standard error on rank 0 (the others' is that file already)."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if rank == 0:
        handlers.append(logging.FileHandler(log_file(folder, rank)))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=handlers)
    logging.captureWarnings(True)


def record_failure(folder: Path, rank: int, error: Exception) -> int:
    """Leave failure.json (the first failing rank's) and the state `failed`; the exit code: 2 for a user's mistake."""
    if isinstance(error, UserError):
        code, reason = 2, str(error)
        log.error("%s", reason)
    else:
        code, reason = 1, f"{type(error).__name__}: {error}"
        log.error("rank %d failed", rank, exc_info=error)
    path = log_file(folder, rank)
    lines = path.read_text(errors="replace").splitlines()[-LAST_LOG_LINES:] if path.exists() else []
    failure = {
        "rank": rank,
        "error": type(error).__name__,
        "reason": reason,
        "traceback": "".join(traceback.format_exception(error)),
        "log": lines,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        # Exclusive: the ranks that fail after the first only tell that it is gone.
        with (folder / FAILURE).open("x") as file:
            json.dump(failure, file, indent=2)
    except FileExistsError:
        return code
    now = datetime.now(UTC).isoformat(timespec="seconds")
    state = RunState.read(folder) or RunState("failed", attempts=1, started=now)
    replace(state, state="failed", ended=now, reason=reason).write(folder)
    return code
