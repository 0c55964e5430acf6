"""`megdet status`: the table of runs, once or live."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict

from megdet.cli.numbers import seconds
from megdet.cli.runs import select_runs
from megdet.runs.as_json import print_json

SUMMARY = "list runs and where they stand; --watch: live"
HELP = """\
List runs: status, progress, the last mmAP, time of training, time left at the present speed; below the table why a run
is where it is. --json has more. Statuses:
  new          not started yet               finished     done
  queued       waits for its job             diverged     training exploded: a result, `failed` in Table 2
  running      under way                     failed       an error; `megdet why` says which and what to do
  requeued     had to make room, goes on     interrupted  stopped; launching it again goes on from there
  cancelled    by megdet cancel or scancel   lost         its job is gone without a word
"""
MIN_POLL_S = 1.0
PIPE_WIDTH = 240


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="*", metavar="RUN", help="default: all of ./runs")
    parser.add_argument("-w", "--watch", action="store_true", help="go on until no run is under way, or Ctrl-C")
    parser.add_argument("--json", action="store_true", help="print JSON (docs/programs.md has its keys)")
    parser.add_argument("--every", type=seconds, default=5.0, metavar="S", help="seconds between looks (5)")


def run(parsed: argparse.Namespace) -> int:
    """Print the table; always 0."""
    # Imported here: --help should not wait for it.
    from rich.console import Console
    from rich.live import Live

    from megdet.cli.standing import standing_of
    from megdet.cli.table import table_of
    from megdet.launchers.jobs import Jobs

    folders, jobs = select_runs(parsed.runs), Jobs()
    if parsed.json:
        stands = jobs.stands_of(folders)
        print_json({"runs": [asdict(standing_of(folder, stand)) for folder, stand in stands.items()]})
        return 0
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width to fit into
        console = Console(width=PIPE_WIDTH)
    stands = jobs.stands_of(folders)
    table = table_of(stands, live_first=parsed.watch)
    if not parsed.watch or not console.is_terminal:
        console.print(table)
    if not parsed.watch:
        return 0
    try:
        with Live(table, console=console, auto_refresh=False) as live:
            while any(stand.status.is_live for stand in stands.values()):
                time.sleep(max(MIN_POLL_S, parsed.every))
                stands = jobs.stands_of(folders)
                live.update(table_of(stands, live_first=True), refresh=True)
    except KeyboardInterrupt:
        pass
    return 0
