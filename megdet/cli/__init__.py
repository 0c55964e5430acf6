"""The command `megdet`: start runs, look after them, make tables of them. One file a command; programs of their own
are in doors.py."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Protocol

from megdet import __version__
from megdet.cli import (
    advise,
    cancel,
    cluster,
    du,
    ensemble,
    evaluate,
    export,
    logs,
    predict,
    publish,
    rm,
    shapes,
    stability,
    status,
    sync,
    wait,
    why,
)
from megdet.cli.doors import DOORS, complete
from megdet.errors import ExitCode, UserError, outlive_closed_pipes

WHICH_RUNS = """
RUN is a run's name, its beginning or a pattern (of ./runs), a run folder, or a folder of runs (all of them).
"""
EPILOG = """\
  megdet data check data=custom ...    look into your own images before you train on them
  megdet launch -m batch=16,64,256 bn_size=16,32 cluster=mine hydra/launcher=submitit_slurm sweep.wait=false
  megdet shapes batch=64 bn_size=16    each layout of an experiment: hours, memory, when it would end
  megdet advise b64-bn16       which batch to use, by the noise in its gradients
  megdet stability batch=16,64 bn_size=0      the largest stable learning rate of each, by short trainings
  megdet status --watch        the runs as they go; Ctrl-C stops watching, not the runs
  megdet logs b256-bn16 -f     what a run says
  megdet why                   what went wrong, by cause, and what to do
  megdet cancel 'b16-*'        stop some; launching them again goes on from their checkpoints
  megdet du                    what runs take on disk
  megdet rm --failed           remove some, in MLflow too
  megdet wait && megdet tables
  megdet publish --out evidence      what the runs recorded, for others to make the same tables of
  megdet predict b256-bn16 photos   what its detector finds in images; eval scores it, export hands it on,
                               ensemble joins several

`megdet COMMAND --help` says more.
"""


class Command(Protocol):
    """What each module of this package provides."""

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
    "predict": predict,
    "eval": evaluate,
    "ensemble": ensemble,
    "export": export,
    "publish": publish,
    "du": du,
    "rm": rm,
    "sync": sync,
    "cluster": cluster,
    "shapes": shapes,
    "advise": advise,
    "stability": stability,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 all is well, 1 a run failed (or an image), 2 a mistake in what was asked, 3 Ctrl-C."""
    outlive_closed_pipes()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words[:1] == ["-sc"]:  # the shell asks on Tab
            return complete(words, [*DOORS, *COMMANDS])
        if words and words[0] in DOORS:
            return DOORS[words[0]].run(words[1:])
        parsed = _parser().parse_args(words)
        logging.basicConfig(format="%(message)s", level=logging.WARNING)
        return COMMANDS[parsed.command].run(parsed)
    except UserError as error:
        print(f"megdet: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"megdet {words[0] if words else ''}: interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="megdet",
        description="Plan and run large-batch detection experiments, look after the runs, and make tables of them.",
        epilog=EPILOG,
        formatter_class=raw,
    )
    parser.add_argument("-V", "--version", action="version", version=f"megdet {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, door in DOORS.items():  # to be listed; main() hands their arguments on
        commands.add_parser(name, help=door.summary, add_help=False)
    for name, command in COMMANDS.items():
        one = commands.add_parser(name, help=command.SUMMARY, description=command.HELP, formatter_class=raw)
        command.add_arguments(one)
        if "RUN" in one.format_usage():
            one.description = command.HELP + WHICH_RUNS
    return parser
