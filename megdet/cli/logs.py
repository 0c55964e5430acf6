"""`megdet logs`: the log of a run."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import suppress
from pathlib import Path

from megdet.cli.numbers import count
from megdet.cli.runs import select_run
from megdet.errors import UserError
from megdet.launchers.jobs import Jobs, job_of
from megdet.runs.folder import RunFolder

SUMMARY = "what a run says; -f: as it says it"
HELP = """\
Print the end of a run's log. With -f go on until the run is over; one that is still queued is waited for.

  megdet logs b256-bn16 -f          rank 0, from the last lines on
  megdet logs b256-bn16 --rank 5    another rank
  megdet logs b256-bn16 --job       what was said around the ranks, by the cluster or the run's launcher
"""
POLL_S = 0.5
LOOK_EVERY_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_name", metavar="RUN", help="one run")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the run is over")
    parser.add_argument("-n", "--lines", type=count, default=40, metavar="N", help="the last N lines (40)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--rank", type=count, default=0, metavar="K", help="of this rank (0)")
    which.add_argument("--job", action="store_true", help="of its job: what was said around the ranks")


def run(parsed: argparse.Namespace) -> int:
    """Print and perhaps follow a log; always 0."""
    folder = select_run(parsed.run_name)
    path = _job_log(folder) if parsed.job else folder.log(parsed.rank)
    if not path.exists() and not parsed.follow:
        there = [file.name for file in folder.logs()]
        raise UserError(
            f"{path} does not exist; " + (f"there is {', '.join(there)}" if there else "the run has not said anything")
        )
    text = path.read_bytes() if path.exists() else b""
    lines = text.splitlines(keepends=True)
    _say(b"".join(lines[max(0, len(lines) - parsed.lines) :]))
    if parsed.follow:
        with suppress(KeyboardInterrupt):
            _follow(folder, path, len(text))
    return 0


def _follow(folder: RunFolder, path: Path, position: int) -> None:
    jobs, look_at, live = Jobs(), 0.0, True
    while True:
        if time.monotonic() > look_at:
            # Before the last reading, so that nothing of a run that ends in between is missed.
            live = jobs.stands_of([folder])[folder].status.is_live
            look_at = time.monotonic() + LOOK_EVERY_S
        if path.exists():
            with path.open("rb") as file:
                file.seek(position if path.stat().st_size >= position else 0)
                _say(file.read())
                position = file.tell()
        if not live:
            return
        time.sleep(POLL_S)


def _job_log(folder: RunFolder) -> Path:
    job = job_of(folder)
    if job is None or job.log is None:
        raise UserError(f"{folder.name}: nothing was said but by its ranks; leave --job out")
    return job.log


def _say(text: bytes) -> None:
    sys.stdout.write(text.decode(errors="replace"))
    sys.stdout.flush()
