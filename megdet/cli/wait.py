"""`megdet wait`: return once no run is under way, for scripts."""

from __future__ import annotations

import argparse

from megdet.cli.numbers import seconds
from megdet.cli.runs import select_runs
from megdet.cli.sync import push_last_state

SUMMARY = "wait until no run is under way; exit code 1 if one came to no result"
HELP = """\
Wait until no run is queued or running. Says what changes; Ctrl-C ends the waiting, not the runs.
Exit code: 0 all runs came to a result (finished or diverged), 1 one failed, was cancelled or interrupted, or was
never started.

  megdet wait && megdet tables
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="*", metavar="RUN", help="default: all of ./runs")
    parser.add_argument("--every", type=seconds, default=3.0, metavar="S", help="seconds between looks (3)")


def run(parsed: argparse.Namespace) -> int:
    """Wait; 0, or 1 if a run has no result."""
    from megdet.launchers.jobs import stands_of
    from megdet.launchers.watch import watch

    folders = select_runs(parsed.runs)
    live = {folder for folder, stand in stands_of(folders).items() if stand.status.is_live}

    def mirror(number: int) -> None:
        if folders[number] in live:
            push_last_state(folders[number])

    return watch(folders, mirror=mirror, poll_s=parsed.every)
