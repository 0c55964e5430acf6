"""`megdet rm`: runs, and what MLflow has of them, go away."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from megdet.cli.disk import bytes_in, replaced_runs, size_text
from megdet.cli.runs import DEFAULT, select_runs
from megdet.errors import ExitCode, UserError
from megdet.launchers.jobs import Jobs
from megdet.runs.code import forget_unused_code
from megdet.runs.folder import RunFolder
from megdet.runs.status import Status
from megdet.tracking.forget import forget

SUMMARY = "remove runs (failed ones, replaced ones, by pattern), here and in MLflow"
HELP = """\
Remove run folders, and their runs in MLflow (which keeps deleted runs until `mlflow gc`). Lists them and asks first.
What is queued or running is never removed. A run that MLflow does not give up stays. Copies of code go with the last
run that was made with them.
Exit code: 0 all are gone, 1 some are left, 2 a mistake in what was asked, or the answer was no.

  megdet rm 'b16-*-lr0.5x-*'    by pattern (in quotes, or the shell reads it)
  megdet rm --failed            all that failed or were lost
  megdet rm --replaced          old folders of runs that were begun anew (sweep.on_existing=force)
  megdet rm --failed --yes      without asking, for scripts
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="*", metavar="RUN", help="which; or --failed or --replaced")
    parser.add_argument(
        "--failed", action="store_true", help="of the runs that are named (or all): failed and lost ones"
    )
    parser.add_argument("--replaced", action="store_true", help="the folders of runs that were begun anew")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")


def run(parsed: argparse.Namespace) -> int:
    """Remove what is named; 0, or 1 where some are left."""
    chosen = _chosen(parsed)
    if not chosen:
        print("nothing to remove")
        return ExitCode.OK
    for folder in chosen:
        print(f"{folder.path}  {size_text(bytes_in(folder.path))}")
    if not parsed.yes:
        _ask(chosen)
    left = [folder for folder in chosen if not _remove(folder)]
    for runs in {folder.path.parent for folder in chosen}:
        for place in forget_unused_code(runs):
            print(f"{place}  no run was made with this code any more")
    return ExitCode.RUN_FAILED if left else ExitCode.OK


def _chosen(parsed: argparse.Namespace) -> list[RunFolder]:
    """The runs to remove. Raises UserError where none is named, or one is under way."""
    if parsed.replaced:
        if parsed.failed or len(parsed.runs) > 1:
            raise UserError("--replaced takes no RUN and no --failed: it is about the old folders of runs begun anew")
        return replaced_runs(Path(parsed.runs[0] if parsed.runs else DEFAULT))
    if not parsed.runs and not parsed.failed:
        raise UserError("name the runs to remove, or --failed, or --replaced; `megdet du` lists what they take")
    folders = select_runs(parsed.runs)
    stands = Jobs().stands_of(folders)
    if parsed.failed:
        return [folder for folder in folders if stands[folder].status in (Status.FAILED, Status.LOST)]
    live = [folder.name for folder in folders if stands[folder].status.is_live]
    if live:
        raise UserError(f"{', '.join(live)}: queued or running; `megdet cancel` stops them first")
    return folders


def _ask(chosen: Sequence[RunFolder]) -> None:
    """Raises UserError unless the answer is yes."""
    size = size_text(sum(bytes_in(folder.path) for folder in chosen))
    runs = "this run" if len(chosen) == 1 else f"these {len(chosen)} runs"
    if not sys.stdin.isatty():
        raise UserError(f"nobody can be asked whether to remove {runs} ({size}); --yes does it without asking")
    if input(f"Remove {runs} ({size}) for good? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError("nothing was removed")


def _remove(folder: RunFolder) -> bool:
    # Before MLflow forgets it: a run without one would be pushed anew.
    if kept := _cannot_be_changed(folder.path):
        print(f"{folder.name}: cannot be removed (no right to change {kept})", file=sys.stderr)
        return False
    if not forget(folder.path):
        print(f"{folder.name}: left, because MLflow has a run of it and does not answer", file=sys.stderr)
        return False
    try:
        shutil.rmtree(folder.path)
    except OSError as error:
        print(f"{folder.name}: cannot be removed ({error})", file=sys.stderr)
        return False
    return True


def _cannot_be_changed(folder: Path) -> Path | None:
    """The first folder, of a run's and the one that it is in, whose entries one may not remove."""
    folders = (folder.parent, *(Path(place) for place, _, _ in os.walk(folder)))
    return next((place for place in folders if not os.access(place, os.W_OK | os.X_OK)), None)
