"""`megdet sync`: send to MLflow what it lacks."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megdet.cli.runs import select_runs
from megdet.errors import UserError
from megdet.runs.folder import RunFolder
from megdet.runs.sweep_folder import Sweep, sweeps_of
from megdet.tracking.client import browse_hint, prepare
from megdet.tracking.mirror import mirror
from megdet.tracking.moved import uri_here
from megdet.tracking.sweep_mirror import mirror_sweep, refresh_sweeps
from megdet.tracking.uri import absolute_uri, default_uri, without_password

SUMMARY = "push to MLflow what it has not"
HELP = """\
Push to MLflow what the run folders hold and it has not: everything that was recorded while the tracking
server was down, or all runs of a folder that was copied from elsewhere; the sweeps that they are part of with
them. Pushing twice adds nothing twice.
Exit code: 0 MLflow has everything, 1 it did not take something.

  megdet sync                                     the runs in ./runs, each to where its plan says
  megdet sync /data/runs --uri http://host:5000   another folder, to another server
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="*", metavar="RUN", help="default: all of ./runs")
    parser.add_argument("--uri", help="tracking server or database; default: as each run's plan says")
    parser.add_argument("--experiment", help="MLflow experiment; default: as each run's plan says")


def run(parsed: argparse.Namespace) -> int:
    """Mirror every run and its sweeps to the plan's tracking URI, or to the one given here."""
    if parsed.uri is not None:
        absolute_uri(parsed.uri)  # a mistake in it concerns no run
    reachable: dict[tuple[str, str], bool] = {}
    done: Counter[str] = Counter()
    last: dict[str, RunFolder] = {}
    left = 0
    folders, places = [], {}
    for folder in select_runs(parsed.runs):
        try:
            places[folder] = _place(folder.path, folder.read_plan()["config"]["tracking"], parsed)
            folders.append(folder)
        except UserError as error:
            left += 1
            print(f"not pushed: {error}", file=sys.stderr)
    sweeps: dict[Path, tuple[str, str]] = {}
    for folder in folders:
        for sweep_folder in sweeps_of(folder):
            sweep = Sweep.read(sweep_folder)
            # One that is not tracked goes with the first of its runs.
            tracking = {"uri": sweep.uri or places[folder][0], "experiment": sweep.experiment}
            sweeps.setdefault(sweep_folder, _place(sweep_folder, tracking, parsed))
    for place in dict.fromkeys([*places.values(), *sweeps.values()]):  # a server that is down is asked once
        reachable[place] = prepare(*place, patience_s=None)
    # Sweeps first: their runs are hung below them.
    for sweep_folder, place in sweeps.items():
        if not (reachable[place] and mirror_sweep(sweep_folder, *place)):
            left += 1
            print(f"not pushed: the sweep {Sweep.read(sweep_folder).name}", file=sys.stderr)
    for folder in folders:
        place = places[folder]
        if reachable[place] and mirror(folder, *place):
            done[place[0]] += 1
            last[place[0]] = folder
        else:
            left += 1
            print(f"not pushed: {folder.name}", file=sys.stderr)
    for uri, count in done.items():
        print(f"{count} {'run' if count == 1 else 'runs'} up to date in {without_password(uri)}")
        print(browse_hint(last[uri].path))
    return 1 if left else 0


def _place(folder: Path, tracking: Mapping[str, Any], parsed: argparse.Namespace) -> tuple[str, str]:
    if parsed.uri is not None:
        uri = absolute_uri(parsed.uri)
    elif tracking["uri"]:
        uri = absolute_uri(uri_here(folder, tracking["uri"]))
    else:
        uri = default_uri(Path.cwd())
    return uri, parsed.experiment or tracking["experiment"]


def push_last_state(folder: RunFolder) -> None:
    """Push how a run ended to MLflow, if it is tracked and its ranks could not."""
    tracking = folder.read_plan()["config"]["tracking"]
    if tracking["enabled"] and tracking["uri"]:
        uri = uri_here(folder.path, tracking["uri"])
        mirror(folder, uri, tracking["experiment"])
        refresh_sweeps(folder, uri, tracking["experiment"])
