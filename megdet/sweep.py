"""From experiments asked for to runs: plan all, show them, leave out what cannot be or is done, hand over the rest.

A single experiment is a sweep of one. Whatever can go wrong before training (layouts, data, weights, tracking)
does so here, before anything starts. Where runs go is the launcher's business; all launchers share what is here.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from megdet.code_version import code_version
from megdet.config import Config
from megdet.cost import check_budget
from megdet.data.files import check_files, coco_files
from megdet.errors import UserError
from megdet.launchers.in_turn import InTurn
from megdet.launchers.interface import ALL_WELL, RUN_FAILED, USER_ERROR, Launcher
from megdet.launchers.local import run_folder
from megdet.launchers.run_status import LIVE, RunStatus, run_status, states_of_jobs
from megdet.plan import Plan, make_plan
from megdet.sweep_record import conclude_sweep, put_on_record
from megdet.tracking.uri import absolute_uri, default_uri
from megdet.weights import ensure_weights

DONE = ("done", "diverged")
"""States that are results: such a run is not started again, unless all is begun anew."""

STARTED_BY: dict[str, tuple[str, ...]] = {
    "skip": ("new",),
    "resume": ("new", "interrupted", "cancelled", "lost"),
    "retry_failed": ("new", "interrupted", "cancelled", "lost", "failed"),
    "force": ("new", "interrupted", "cancelled", "lost", "failed", *DONE),
}
"""Which points a sweep starts, by `sweep.on_existing`. What is queued or running is in none."""


@dataclass(frozen=True)
class Asked:
    """One experiment, and the overrides that tell it from the others of its sweep."""

    overrides: tuple[str, ...]
    config: Config


@dataclass(frozen=True)
class Point:
    """One experiment of a sweep, planned."""

    asked: Asked
    plan: Plan | None
    """None where it cannot be."""
    state: str
    """new, done, diverged, failed, interrupted, cancelled, lost, queued, running, requeued, repeated or invalid."""
    why: str = ""


def run_points(
    asked: Sequence[Asked],
    *,
    launcher: Launcher | None = None,
    arguments: Sequence[str] | None = None,
    conclude: Callable[[Path], None] | None = None,
) -> int:
    """Plan, show and run experiments by a launcher (here, one after the other, where none is given); the exit code.

    `arguments`: the command line's, where all of a sweep is asked for at once; the sweep is then on record in a
    folder, and `conclude` is called on it when the launcher is done.
    """
    sweep = asked[0].config.sweep
    launcher = launcher or InTurn()
    if sweep.on_existing not in STARTED_BY:
        return report(UserError(f"sweep.on_existing={sweep.on_existing}: use one of {', '.join(STARTED_BY)}"))
    points = plan_points(asked, to_run_here=not sweep.dry_run, launcher=launcher)
    _show(points)
    invalid = [point for point in points if point.state == "invalid"]
    if len(invalid) == len(points) or (invalid and sweep.on_invalid == "error"):
        return USER_ERROR
    plans = to_start(points, sweep.on_existing)
    try:
        check_budget(plans, sweep.max_gpu_hours)
        if sweep.dry_run:
            print(launcher.preview(plans) if plans else "", end="", flush=True)
            return ALL_WELL
        _make_ready(plans, anew=sweep.on_existing == "force")
        folder = _on_record(points, arguments) if arguments else None
        code = _start(points, plans, launcher)
    except UserError as error:
        return report(error)
    if folder:
        if conclude:
            conclude(folder)
        conclude_sweep(folder)
    return code


def to_start(points: Sequence[Point], on_existing: str) -> list[Plan]:
    """The plans that a sweep starts, or goes on with."""
    return [point.plan for point in points if point.plan and point.state in STARTED_BY[on_existing]]


def report(error: UserError) -> int:
    """Print a user's mistake; the exit code for it."""
    print(error, file=sys.stderr, flush=True)
    return USER_ERROR


def plan_points(asked: Sequence[Asked], *, to_run_here: bool, launcher: Launcher | None = None) -> list[Point]:
    """The plan of each experiment, or why there is none; nothing is started or written.

    `to_run_here`: what the launcher has no room for is invalid.
    """
    launcher = launcher or InTurn()
    commit, dirty = code_version()
    plans: list[Plan | UserError] = []
    for one in asked:
        try:
            plan = make_plan(_resolved(one.config, launcher), commit=commit, dirty=dirty)
            if to_run_here:
                launcher.check(plan)
            plans.append(plan)
        except UserError as error:
            plans.append(error)
    # One question to the cluster for all of them.
    jobs = states_of_jobs([run_folder(plan) for plan in plans if isinstance(plan, Plan)])
    points: list[Point] = []
    seen: set[str] = set()
    for one, planned in zip(asked, plans, strict=True):
        if isinstance(planned, UserError):
            points.append(Point(one, None, "invalid", str(planned)))
        elif planned.run_id in seen:
            why = "the same run as one above: it differs in nothing that is learned"
            points.append(Point(one, planned, "repeated", why))
        else:
            seen.add(planned.run_id)
            points.append(Point(one, planned, *_as_a_point(run_status(run_folder(planned), jobs))))
    return points


def state_of(plan: Plan) -> tuple[str, str]:
    """Where a plan's run stands, in a sweep's words, and why."""
    folder = run_folder(plan)
    return _as_a_point(run_status(folder, states_of_jobs([folder])))


def _as_a_point(status: RunStatus) -> tuple[str, str]:
    return {"planned": "new", "finished": "done"}.get(status.state, status.state), status.why


def prepare(plan: Plan) -> None:
    """See to it that data and weights are there. Raises UserError."""
    config = plan.config
    root = Path(config.data.root)
    if config.data.name != "shapes":
        check_files(coco_files(root))
    ensure_weights(config.model.weights, config.model.backbone)
    if config.data.name == "shapes":
        # Imported here: it brings numpy, which planning does without.
        from megdet.data.shapes import generate_shapes

        generate_shapes(
            root,
            train_images=config.data.train_images,
            val_images=config.data.val_images,
            image_size=config.data.min_size,
            seed=0,
        )


def _resolved(config: Config, launcher: Launcher) -> Config:
    """The config with what depends on this machine and folder spelled out, so that a plan runs from anywhere."""
    config = copy.deepcopy(launcher.resolve(config))
    config.data.root = str(Path(config.data.root).expanduser().resolve())
    if config.tracking.enabled:
        uri = config.tracking.uri
        config.tracking.uri = absolute_uri(uri) if uri else default_uri(Path.cwd())
    return config


def _make_ready(plans: Sequence[Plan], *, anew: bool) -> None:
    for plan in plans:
        prepare(plan)
    if anew:
        for plan in plans:
            _put_aside(run_folder(plan))
    _prepare_tracking(plans)


def _on_record(points: Sequence[Point], arguments: Sequence[str]) -> Path | None:
    plans = [point.plan for point in points if point.plan]
    first = points[0].asked
    given = {argument.partition("=")[0] for argument in arguments}
    swept = [key for key in (override.partition("=")[0] for override in first.overrides) if key in given]
    return put_on_record(plans, arguments, swept=swept, rows=first.config.sweep.rows)


def _start(points: Sequence[Point], plans: Sequence[Plan], launcher: Launcher) -> int:
    under_way = [point.plan for point in points if point.plan and point.state in LIVE]
    left = [point for point in points if point.state == "failed" and point.plan not in plans]
    if left:
        runs = "1 failed run is" if len(left) == 1 else f"{len(left)} failed runs are"
        print(f"{runs} left alone; sweep.on_existing=retry_failed starts such runs again", file=sys.stderr, flush=True)
    code = launcher.run(plans, under_way, mirror=_mirror) if plans or under_way else ALL_WELL
    return code or (RUN_FAILED if left else ALL_WELL)


def _put_aside(folder: Path) -> None:
    """An old run's folder, out of the way and not lost."""
    if folder.exists():
        replaced = folder.parent / ".replaced"
        replaced.mkdir(exist_ok=True)
        folder.rename(replaced / f"{folder.name}-{time.strftime('%Y%m%d-%H%M%S')}-{time.monotonic_ns() % 10**6}")


def _prepare_tracking(plans: Sequence[Plan]) -> None:
    """Once, before many ranks write."""
    places = {(p.config.tracking.uri, p.config.tracking.experiment) for p in plans if p.config.tracking.enabled}
    for uri, experiment in sorted(places, key=str):
        from megdet.tracking.client import prepare as prepare_mlflow

        assert uri is not None, "resolved with the plan"
        prepare_mlflow(uri, experiment)


def _mirror(plan: Plan) -> None:
    """The last state of a run whose ranks could not tell MLflow themselves any more."""
    tracking = plan.config.tracking
    if tracking.enabled and tracking.uri:
        from megdet.tracking.mlflow import mirror

        mirror(run_folder(plan), tracking.uri, tracking.experiment)


def _show(points: Sequence[Point]) -> None:
    from megdet.plan_table import describe, print_table

    if len(points) == 1:
        describe(points[0])
    else:
        print_table(points)
