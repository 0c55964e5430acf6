"""`megdet cancel`: stop runs, queued or running."""

from __future__ import annotations

import argparse
import sys

from megdet.cli.runs import select_runs
from megdet.errors import ExitCode, UserError
from megdet.launchers.jobs import Jobs

SUMMARY = "stop queued and running runs"
HELP = """\
Stop runs: jobs of a cluster are cancelled, a launcher on this machine is asked to stop (as Ctrl-C would, with the runs
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
    look = Jobs().look_at(folders)
    live = [folder for folder in folders if look.stand(folder).status.is_live]
    if not parsed.runs and not parsed.all:
        names = ", ".join(folder.name for folder in live) or "none now"
        raise UserError(f"name the runs to cancel, or --all for those that are queued or running: {names}")
    code = ExitCode.OK
    for folder in live:
        job = look.job(folder)
        assert job is not None, "what is under way has a job"
        try:
            job.cancel()
            print(f"{folder.name}: cancelled")
        except UserError as error:
            print(f"{folder.name}: {error}", file=sys.stderr)
            code = ExitCode.RUN_FAILED
    over = len(folders) - len(live)
    if over and not parsed.all:
        print(f"{over} {'is' if over == 1 else 'are'} neither queued nor running")
    return code
