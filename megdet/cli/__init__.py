"""The command `megdet`: look after runs that `launch.py` has started. One file a command."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Protocol

from megdet.cli import cancel, logs, status, sync, wait, why
from megdet.errors import UserError, outlive_closed_pipes

WHICH_RUNS = """
RUN is a run's name, its beginning or a pattern (of ./runs), a run folder, or a folder of runs (all of them).
"""
EPILOG = """\
After `python launch.py -m ... hydra/launcher=submitit_slurm sweep.wait=false`:

  megdet status --watch        the runs as they go; Ctrl-C stops watching, not the runs
  megdet logs b256-bn16 -f     what a run says
  megdet why                   what went wrong, by cause, and what to do
  megdet cancel 'b16-*'        stop some; launching them again goes on from their checkpoints
  megdet wait && python analysis/make_tables.py

`megdet COMMAND --help` says more.
"""


class Command(Protocol):
    """What each module of this package has."""

    SUMMARY: str
    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, parsed: argparse.Namespace) -> int: ...


COMMANDS: dict[str, Command] = {
    "status": status,
    "wait": wait,
    "why": why,
    "logs": logs,
    "cancel": cancel,
    "sync": sync,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 all is well, 1 a run failed (or could not be reached), 2 a mistake in what was asked."""
    parsed = _parser().parse_args(arguments)
    outlive_closed_pipes()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        return COMMANDS[parsed.command].run(parsed)
    except UserError as error:
        print(f"megdet: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="megdet",
        description="Look after runs that `python launch.py` has started.",
        epilog=EPILOG,
        formatter_class=raw,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        description = command.HELP + WHICH_RUNS
        one = commands.add_parser(name, help=command.SUMMARY, description=description, formatter_class=raw)
        command.add_arguments(one)
    return parser
