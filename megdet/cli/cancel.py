"""`megdet cancel`: stop runs, wherever they are."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from megdet.cli.runs import select_runs
from megdet.errors import UserError
from megdet.launchers.client import SlurmError, call
from megdet.launchers.job_states import JobState
from megdet.launchers.ledger import Submission, mark_cancelled
from megdet.launchers.run_status import run_status, states_of_jobs
from megdet.runs.folder import RunFolder

SUMMARY = "stop queued and running runs"
HELP = """\
Stop runs: jobs are cancelled (scancel), a launcher on this machine is asked to stop (as Ctrl-C would, with the runs
it has not begun). Training that is under way writes a checkpoint first; launching again goes on from it.
Exit code: 0 all were told, 1 one could not be.

  megdet cancel 'b16-*'      by pattern (in quotes, or the shell reads it)
  megdet cancel --all        whatever is queued or running in ./runs
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="*", metavar="RUN", help="which; or --all")
    parser.add_argument("--all", action="store_true", help="all of the folder that are queued or running")


def run(parsed: argparse.Namespace) -> int:
    """Cancel what is queued or running; 0, or 1 where that failed."""
    folders = select_runs(parsed.runs)
    states = states_of_jobs(folders)
    live = [folder for folder in folders if run_status(folder, states).status.is_live]
    if not parsed.runs and not parsed.all:
        names = ", ".join(folder.name for folder in live) or "none now"
        raise UserError(f"name the runs to cancel, or --all for those that are queued or running: {names}")
    failed = 0
    for folder in live:
        problem = _cancel(folder, states)
        failed += problem is not None
        print(f"{folder.name}: {problem or 'cancelled'}", file=sys.stderr if problem else sys.stdout)
    over = len(folders) - len(live)
    if over and not parsed.all:
        print(f"{over} {'is' if over == 1 else 'are'} neither queued nor running")
    return 1 if failed else 0


def _cancel(folder: RunFolder, states: Mapping[str, JobState]) -> str | None:
    """Stop one run; what went wrong, if anything did."""
    submission = Submission.read(folder)
    if submission and states[submission.job].is_live:
        try:
            call("scancel", submission.job)
        except SlurmError as error:
            return f"job {submission.job} was not cancelled: {error}"
        mark_cancelled(folder)
        return None
    launcher = launcher_here(folder)
    if launcher is None:
        return "it runs on this machine, but which process started it is not known; stop that with Ctrl-C"
    os.kill(launcher, signal.SIGTERM)
    return None


def launcher_here(folder: RunFolder) -> int | None:
    """The process of this machine that holds a run folder's lock, where the system tells."""
    try:
        inode = folder.lock.stat().st_ino
        locks = Path("/proc/locks").read_text()
    except OSError:
        return None
    for line in locks.splitlines():
        words = line.split()
        if len(words) > 5 and words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode):
            pid = int(words[4])
            return pid if pid > 0 and Path(f"/proc/{pid}").exists() else None
    return None
