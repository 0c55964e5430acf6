"""`megdet why`: what went wrong, by cause."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from megdet.cli.numbers import count
from megdet.cli.runs import select_runs
from megdet.errors import UserError, printable
from megdet.runs.as_json import print_json
from megdet.runs.code import frozen_folder
from megdet.runs.folder import RunFolder
from megdet.runs.status import Stand, Status

if TYPE_CHECKING:
    from megdet.runs.causes import Diagnosis

RETRY = "sweep.on_existing=retry_failed"

SUMMARY = "why runs failed, by cause, and what to do"
HELP = """\
Group the runs that came to no result (and those that diverged) by cause: CUDA out of memory, out of main memory,
network between ranks, node failure, time limit, divergence, configuration or data, any other error. With the last
log lines of one run of each group, the code that they ran, and what to do.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="*", metavar="RUN", help="default: all of ./runs")
    parser.add_argument("--json", action="store_true", help="print JSON (docs/programs.md has its keys)")
    parser.add_argument("-n", "--lines", type=count, default=5, metavar="N", help="log lines shown of each group (5)")


def run(parsed: argparse.Namespace) -> int:
    """Print the groups; always 0."""
    from megdet.launchers.jobs import Jobs
    from megdet.runs.causes import damaged_plan, group

    folders = select_runs(parsed.runs)
    look = Jobs().look_at(folders)
    named = {folder.name: folder for folder in folders}
    stands = {folder.name: look.stand(folder) for folder in folders}
    found = [look.diagnosis(folder, stands[folder.name]) or damaged_plan(folder) for folder in folders]
    groups = group([failure for failure in found if failure])
    if parsed.json:
        print_json({"groups": [_as_json(alike, stands, named) for alike in groups]})
        return 0
    if not groups:
        print(f"nothing went wrong with {_runs(len(folders))}")
    for alike in groups:
        print(f"{alike[0].cause.name}: {_runs(len(alike))}")
        for reason, runs in _by_reason(alike).items():
            print(f"  {printable(reason)}\n    {printable(', '.join(runs))}")
        for line in alike[0].log[-parsed.lines :] if parsed.lines > 0 else ():
            print(f"    | {printable(line)}")
        for code in sorted({_code(named[one.run]) for one in alike} - {""}):
            print(f"  Code: {code}")
        print(f"  What to do: {_advice(alike, stands)}\n")
    return 0


def _runs(count: int) -> str:
    return f"{count} {'run' if count == 1 else 'runs'}"


def _by_reason(alike: Sequence[Diagnosis]) -> dict[str, list[str]]:
    """The runs of each reason: what many say is said once."""
    reasons: dict[str, list[str]] = {}
    for failure in alike:
        where = "" if failure.rank is None else f" (rank {failure.rank})"
        reasons.setdefault(failure.reason, []).append(failure.run + where)
    return reasons


def _advice(alike: Sequence[Diagnosis], stands: Mapping[str, Stand]) -> str:
    """The cause's advice, with what starts such runs again: failed ones are left alone unless that is asked for."""
    advice = alike[0].cause.advice
    failed = any(stands[failure.run].status == Status.FAILED for failure in alike)
    if not failed or RETRY in advice:
        return advice
    return f"{advice} Failed runs start again with {RETRY}, added to the command that started them."


def _code(folder: RunFolder) -> str:
    """`commit c0ffee1234, changed; a copy is in runs/.code/0123456789ab`; empty where the run has no plan to read."""
    try:
        plan = folder.read_plan()
    except UserError:
        return ""
    words = f"commit {plan['commit'][:10]}" + (", changed" if plan["dirty"] else "")
    place = frozen_folder(folder.path.parent, plan["code"]) if plan.get("code") else None
    return f"{words}; a copy is in {place}" if place and place.exists() else words


def _as_json(alike: Sequence[Diagnosis], stands: Mapping[str, Stand], named: Mapping[str, RunFolder]) -> dict[str, Any]:
    return {
        "cause": alike[0].cause.name,
        "advice": _advice(alike, stands),
        "runs": [
            {
                "run": one.run,
                "status": stands[one.run].status,
                "reason": one.reason,
                "rank": one.rank,
                "code": _code(named[one.run]),
                "log": one.log,
            }
            for one in alike
        ],
    }
