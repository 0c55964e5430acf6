"""`megdet sync`: MLflow gets what it has not."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from megdet.cli.runs import plan_of, select_runs
from megdet.tracking.mlflow import default_uri, mirror, prepare

SUMMARY = "push to MLflow what it has not"
HELP = """\
Push to MLflow what the run folders hold and it has not: everything that was recorded while the tracking
server was down, or all runs of a folder that was copied from elsewhere. Pushing twice adds nothing twice.
Exit code: 0 MLflow has everything, 1 it did not take something.

  megdet sync                                     the runs in ./runs, each to where its plan says
  megdet sync /data/runs --uri http://host:5000   another folder, to another server
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="*", metavar="RUN", help="default: all of ./runs")
    parser.add_argument("--uri", help="tracking server or database; default: as each run's plan says")
    parser.add_argument("--experiment", help="MLflow experiment; default: as each run's plan says")


def run(parsed: argparse.Namespace) -> int:
    """Mirror every run; where to is the plan's choice unless it is given here."""
    reachable: dict[tuple[str, str], bool] = {}
    done: Counter[str] = Counter()
    left = 0
    for folder in select_runs(parsed.runs):
        tracking = plan_of(folder)["config"]["tracking"]
        uri = parsed.uri or tracking["uri"] or default_uri(Path.cwd())
        place = uri, parsed.experiment or tracking["experiment"]
        if place not in reachable:  # a server that is down is asked once, not once per run
            reachable[place] = prepare(*place)
        if reachable[place] and mirror(folder, *place):
            done[uri] += 1
        else:
            left += 1
            print(f"not pushed: {folder.name}", file=sys.stderr)
    for uri, count in done.items():
        print(f"{count} {'run' if count == 1 else 'runs'} up to date in {uri}")
        if uri.startswith("sqlite:"):
            print(f"to browse: mlflow ui --backend-store-uri {uri}")
    return 1 if left else 0


def push_last_state(folder: Path) -> None:
    """Tell MLflow how a run ended whose ranks could not do so themselves, if it is tracked."""
    tracking = plan_of(folder)["config"]["tracking"]
    if tracking["enabled"] and tracking["uri"]:
        mirror(folder, tracking["uri"], tracking["experiment"])
