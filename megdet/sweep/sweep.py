"""From experiments to runs: plan all, show them, skip invalid and finished ones, launch the rest.

A single experiment is a sweep of one. Whatever can go wrong before training (layouts, data, weights, tracking)
does so here, before anything starts. All launchers share this; only where runs go differs.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from megdet.config.experiments import Asked
from megdet.config.locations import LAUNCH
from megdet.data.resolve import DataResolver
from megdet.errors import ExitCode, UserError
from megdet.launchers.interface import Launcher
from megdet.launchers.local.launcher import LocalLauncher
from megdet.planning.plan import Plan
from megdet.runs.canary import Canary, canaries_of
from megdet.runs.data_places import portable
from megdet.runs.folder import folder_of
from megdet.runs.prediction import check_budget
from megdet.runs.status import Status
from megdet.sweep.forks import with_forks
from megdet.sweep.points import Point, plan_points, to_start
from megdet.sweep.ready import make_ready
from megdet.sweep.record import conclude_sweep, put_on_record


def run_points(
    asked: Sequence[Asked],
    *,
    launcher: Launcher | None = None,
    arguments: Sequence[str] | None = None,
    conclude: Callable[[Path], None] | None = None,
    said: set[str] | None = None,
) -> ExitCode:
    """Plan, show and run experiments by a launcher (here, one after the other, where none is given); the exit code.

    `arguments`: the command line's, where all of a sweep is asked for at once; the sweep is then on record in a
    folder, and `conclude` is called on it when the launcher is done. `said`: the launcher's remarks on earlier points,
    which are not repeated; those on these points are added.
    """
    sweep = asked[0].config.sweep
    launcher = launcher or LocalLauncher()
    try:
        sweep.check("sweep.")  # once for all points
        if sweep.seeds is not None:
            raise UserError(
                f"sweep.seeds={sweep.seeds} is for sweeps of megdet's own: add -m and the rows to compare, without "
                f"hydra/sweeper ({LAUNCH} -m sweep=table3 sweep.seeds={sweep.seeds}), or leave it out"
            )
    except UserError as error:
        return report(error)
    data = DataResolver()
    points = with_forks(plan_points(asked, to_run_here=not sweep.dry_run, launcher=launcher, data=data))
    for repair in data.repairs:
        print(repair, file=sys.stderr, flush=True)
    _show(points, as_json=sweep.dry_run == "json")
    said = set() if said is None else said
    for remark in launcher.remarks([point.plan for point in points if point.plan]):
        if remark not in said:
            print(remark, file=sys.stderr if sweep.dry_run == "json" else sys.stdout, flush=True)
        said.add(remark)
    invalid = [point for point in points if point.plan is None]
    if len(invalid) == len(points) or (invalid and sweep.on_invalid == "error"):
        return ExitCode.USER_ERROR
    plans = to_start(points, sweep.on_existing)
    canaries = canaries_of(plans) if sweep.canary else []
    try:
        check_budget(plans, sweep.max_gpu_hours, measured_later=sweep.canary)
        if sweep.dry_run:
            shown = plans and sweep.dry_run != "json"
            print(launcher.preview(plans, canaries=canaries) if shown else "", end="", flush=True)
            return ExitCode.OK
        make_ready(plans, anew=sweep.on_existing == "force")
        folder = on_record(points, arguments) if arguments else None
        code = _start(points, plans, launcher, canaries)
    except UserError as error:
        return report(error)
    if folder:
        if conclude:
            conclude(folder)
        conclude_sweep(folder)
    return code


def report(error: UserError) -> ExitCode:
    """Print a user's mistake; the exit code for it."""
    print(error, file=sys.stderr, flush=True)
    return ExitCode.USER_ERROR


def on_record(points: Sequence[Point], arguments: Sequence[str]) -> Path | None:
    """The folder of the sweep of these points, made or found; None for a single run."""
    plans = [point.plan for point in points if point.plan]
    first = points[0].asked
    given = {argument.partition("=")[0] for argument in arguments}
    swept = [key for key in (override.partition("=")[0] for override in first.overrides) if key in given]
    return put_on_record(plans, arguments, swept=swept, rows=first.config.sweep.rows)


def _start(points: Sequence[Point], plans: Sequence[Plan], launcher: Launcher, canaries: Sequence[Canary]) -> ExitCode:
    under_way = [point.plan for point in points if point.plan and point.status and point.status.is_live]
    left = [point for point in points if point.status == Status.FAILED and point.plan not in plans]
    if left:
        runs = "1 failed run is" if len(left) == 1 else f"{len(left)} failed runs are"
        print(f"{runs} left alone; sweep.on_existing=retry_failed starts such runs again", file=sys.stderr, flush=True)
    for point in points:
        if point.plan and point.status and point.status.is_result and point.plan not in plans:
            _restore_plan(point.plan)
    code = ExitCode.OK
    if plans or under_way:
        code = launcher.run(plans, under_way, mirror=_mirror, canaries=canaries)
    return code or (ExitCode.RUN_FAILED if left else ExitCode.OK)


def _restore_plan(plan: Plan) -> None:
    """Write the plan.json of a run that has ended anew where it is lost or damaged."""
    folder = folder_of(plan)
    try:
        folder.read_plan()
    except UserError:
        owned = folder.claim(f"plan-{secrets.token_hex(4)}")
        owned.write_plan(portable(plan, owned).to_json())
        said = f"{plan.run_id}: its {folder.plan.name} was lost or damaged, and is written anew"
        print(said, file=sys.stderr, flush=True)


def _mirror(plan: Plan) -> None:
    """Push the last state of a run whose ranks ended before they could."""
    tracking = plan.config.tracking
    if tracking.enabled and tracking.uri:
        from megdet.tracking.mirror import mirror

        mirror(folder_of(plan), tracking.uri, tracking.experiment)


def _show(points: Sequence[Point], *, as_json: bool) -> None:
    if as_json:
        from megdet.sweep.plan_json import print_plans

        print_plans(points)
        return
    from megdet.sweep.plan_table import describe, print_table

    if len(points) == 1:
        describe(points[0])
    else:
        print_table(points)
