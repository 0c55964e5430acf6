"""`megdet why`: what went wrong, by cause."""

from __future__ import annotations

import argparse

from megdet.cli.numbers import count
from megdet.cli.runs import select_runs
from megdet.errors import printable

SUMMARY = "why runs failed, by cause, and what to do"
HELP = """\
Group the runs that came to no result (and those that diverged) by cause: CUDA out of memory, out of main memory,
network between ranks, node failure, time limit, divergence, configuration or data, any other error. With the last
log lines of one run of each group, and what to do.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="*", metavar="RUN", help="default: all of ./runs")
    parser.add_argument("-n", "--lines", type=count, default=5, metavar="N", help="log lines shown of each group (5)")


def run(parsed: argparse.Namespace) -> int:
    """Print the groups; always 0."""
    from megdet.launchers.jobs import Jobs
    from megdet.runs.causes import group

    folders = select_runs(parsed.runs)
    look = Jobs().look_at(folders)
    found = [look.diagnosis(folder) for folder in folders]
    groups = group([failure for failure in found if failure])
    if not groups:
        print(f"nothing went wrong with {len(folders)} {'run' if len(folders) == 1 else 'runs'}")
    for alike in groups:
        first = alike[0]
        print(f"{first.cause.name}: {len(alike)} {'run' if len(alike) == 1 else 'runs'}")
        for failure in alike:
            where = "" if failure.rank is None else f" (rank {failure.rank})"
            print(f"  {printable(f'{failure.run}{where}: {failure.reason}')}")
        for line in first.log[-parsed.lines :] if parsed.lines > 0 else ():
            print(f"    | {printable(line)}")
        print(f"  What to do: {first.cause.advice}\n")
    return 0
