"""`megdet publish`: the records of runs, for others to make the same tables of."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from megdet.cli.disk import bytes_in, size_text
from megdet.cli.runs import select_runs
from megdet.errors import UserError
from megdet.launchers.jobs import Jobs
from megdet.runs.causes import damaged_plan
from megdet.runs.folder import RunFolder
from megdet.runs.publish import publish
from megdet.settings.counted import counted
from megdet.settings.paths import writing_to

SUMMARY = "copy what runs recorded, without weights, for others to make the same tables of"
HELP = """\
Copy the records of runs that have a result to a folder to hand on, to commit beside a paper or to attach to an issue:
plans, journals, states, class names and what was studied in them; some tens of kB a run. Weights, pictures and logs
stay behind, as do accounts, addresses and commands of a cluster; of files and folders the names are kept.
Published again, a run's records are replaced.

  megdet publish --out evidence                 all of ./runs that have a result
  megdet publish 'b64-*' --out evidence
  megdet tables --from evidence                 what others do with them; so do figures, report, status
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="*", metavar="RUN", help="default: all of ./runs")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="where they go, a folder for each run"
    )


def run(parsed: argparse.Namespace) -> int:
    """Publish; always 0. Raises UserError where no run has a result."""
    folders = select_runs(parsed.runs)
    chosen = _with_results(folders)
    with writing_to(parsed.out):
        size = sum(bytes_in(publish(folder, parsed.out)) for folder in chosen)
    print(f"{parsed.out}: {counted(len(chosen), 'run')}, {size_text(size)}; `megdet tables --from {parsed.out}`")
    return 0


def _with_results(folders: Sequence[RunFolder]) -> list[RunFolder]:
    """Those that have a result; the others are named on stderr. Raises UserError where there is none."""
    stands = Jobs().stands_of(folders)
    for folder in folders:
        if not stands[folder].status.is_result:
            print(f"left out: {folder.name} has no result ({stands[folder].status})", file=sys.stderr)
    chosen = [folder for folder in folders if stands[folder].status.is_result and _can_be_read(folder)]
    if not chosen:
        raise UserError(
            "no run to publish: a result is needed (finished or diverged); `megdet status` says where they stand"
        )
    return chosen


def _can_be_read(folder: RunFolder) -> bool:
    """Whether its plan can; else it is named on stderr."""
    if damaged := damaged_plan(folder):
        print(f"left out: {damaged.reason}", file=sys.stderr)
    return damaged is None
