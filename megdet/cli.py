"""The command `megdet`: look after runs that `launch.py` has started."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megdet.errors import UserError
from megdet.tracking.journal import RunState, read_journal, run_folders
from megdet.tracking.mlflow import default_uri, mirror, prepare

QUIET_AFTER_S = 3600
"""A run that writes nothing for this long may have been killed; `megdet status` says so."""

SYNC_HELP = """\
Push to MLflow what the run folders hold and it has not: everything that was recorded while the tracking
server was down, or all runs of a folder that was copied from elsewhere. Pushing twice adds nothing twice.

  megdet sync                                     the runs in ./runs, each to where its plan says
  megdet sync /data/runs --uri http://host:5000   another folder, to another server
"""
STATUS_HELP = """\
List the runs of a folder: state, progress, the last mmAP and hours of training. States:
  planned      not started yet               diverged     training exploded: a result, `failed` in Table 2
  running      under way                     failed       an error; failure.json in the run folder says which
  finished     done                          interrupted  stopped; launching it again goes on from there
"""
STYLES = {"finished": "green", "running": "cyan", "diverged": "magenta", "failed": "red", "interrupted": "yellow"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 done, 1 MLflow did not take everything, 2 a mistake in what was asked."""
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        if parsed.command == "sync":
            return sync(parsed.runs, uri=parsed.uri, experiment=parsed.experiment)
        return status(parsed.runs)
    except UserError as error:
        print(f"megdet: {error}", file=sys.stderr)
        return 2


def sync(runs: Path, *, uri: str | None, experiment: str | None) -> int:
    """Mirror every run folder in `runs`; where to is the plan's choice unless it is given here."""
    reachable: dict[tuple[str, str], bool] = {}
    done: Counter[str] = Counter()
    left = 0
    for folder in run_folders(runs):
        tracking = _plan(folder)["config"]["tracking"]
        place = uri or tracking["uri"] or default_uri(Path.cwd()), experiment or tracking["experiment"]
        if place not in reachable:  # a server that is down is asked once, not once per run
            reachable[place] = prepare(*place)
        if reachable[place] and mirror(folder, *place):
            done[place[0]] += 1
        else:
            left += 1
            print(f"not pushed: {folder.name}", file=sys.stderr)
    for place_uri, count in done.items():
        print(f"{count} {'run' if count == 1 else 'runs'} up to date in {place_uri}")
        if place_uri.startswith("sqlite:"):
            print(f"to browse: mlflow ui --backend-store-uri {place_uri}")
    return 1 if left else 0


def status(runs: Path) -> int:
    """Print the table of runs."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=str(runs), title_justify="left")
    for name in ("run", "state", "epoch", "step", "mmAP", "hours", "reason"):
        table.add_column(name, justify="left" if name in ("run", "state", "reason") else "right")
    counts: Counter[str] = Counter()
    for folder in run_folders(runs):
        row = _row(folder)
        counts[row[1]] += 1
        styles = ("", STYLES.get(row[1], "")) + len(row[2:]) * ("",)
        table.add_row(*(Text(cell, style) for cell, style in zip(row, styles, strict=True)))
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width to fit into
        console = Console(width=200)
    console.print(table)
    console.print(", ".join(f"{count} {state}" for state, count in counts.most_common()))
    return 0


def _row(folder: Path) -> tuple[str, ...]:
    plan, state = _plan(folder), RunState.read(folder)
    epochs = plan["schedule"]["epochs"]
    if state is None:
        return folder.name, "planned", f"0/{epochs}", "", "", "", ""
    lines = read_journal(folder)
    epoch_lines = [line for line in lines if line["kind"] == "epoch"]
    last = epoch_lines[-1] if epoch_lines else {}
    reason = state.reason or ""
    quiet_s = time.time() - (lines[-1]["time"] if lines else (folder / "state.json").stat().st_mtime)
    if state.state == "running" and quiet_s > QUIET_AFTER_S:
        reason = f"nothing written for {quiet_s / 3600:.1f} h: killed?"
    return (
        folder.name,
        state.state,
        f"{last.get('epoch', 0)}/{epochs}",
        str(lines[-1]["step"] if lines else state.step),
        "" if last.get("mmAP") is None else f"{last['mmAP']:.1f}",
        f"{state.train_s / 3600:.3g}",
        reason,
    )


def _plan(folder: Path) -> dict[str, Any]:
    try:
        plan: dict[str, Any] = json.loads((folder / "plan.json").read_text())
    except ValueError as error:
        raise UserError(f"{folder / 'plan.json'} is damaged ({error}); move the run folder away") from None
    return plan


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="megdet",
        description="Look after runs that `python launch.py` has started.",
        epilog="`megdet COMMAND --help` says more. Tables: python analysis/make_tables.py --help",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    raw = argparse.RawDescriptionHelpFormatter
    for name, summary, text in (
        ("sync", "push to MLflow what it has not", SYNC_HELP),
        ("status", "list runs and where they stand", STATUS_HELP),
    ):
        command = commands.add_parser(name, help=summary, description=text, formatter_class=raw)
        command.add_argument(
            "runs", nargs="?", type=Path, default=Path("runs"), metavar="RUNS_DIR", help="default: runs"
        )
        if name == "sync":
            command.add_argument("--uri", help="tracking server or database; default: as each run's plan says")
            command.add_argument("--experiment", help="MLflow experiment; default: as each run's plan says")
    return parser


if __name__ == "__main__":
    sys.exit(main())
