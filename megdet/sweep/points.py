"""The points of a sweep: each experiment asked for with its plan, or why there is none, and where its run stands."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megdet.config.compose import Asked
from megdet.config.schema import Config
from megdet.data.resolve import DataResolver
from megdet.errors import UserError
from megdet.launchers.in_turn import InTurn
from megdet.launchers.interface import Launcher
from megdet.launchers.local import run_folder
from megdet.launchers.run_status import LIVE, RunStatus, run_status, states_of_jobs
from megdet.planning.code_version import code_version
from megdet.planning.plan import Plan, make_plan
from megdet.runs.provenance import check_same_data
from megdet.tracking.uri import absolute_uri, default_uri

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
class Point:
    """One experiment of a sweep, planned."""

    asked: Asked
    plan: Plan | None
    """None where it cannot be."""
    state: str
    """new, done, diverged, failed, interrupted, cancelled, lost, queued, running, requeued, repeated or invalid."""
    why: str = ""


def plan_points(
    asked: Sequence[Asked], *, to_run_here: bool, launcher: Launcher | None = None, data: DataResolver | None = None
) -> list[Point]:
    """The plan of each experiment, or why there is none; nothing is started or written.

    `to_run_here`: what the launcher has no room for is invalid. `data` then knows the data that was read.
    """
    launcher, data = launcher or InTurn(), data or DataResolver()
    commit, dirty = code_version()
    plans: list[Plan | UserError] = []
    for one in asked:
        try:
            plan = make_plan(_resolved(one.config, launcher, data), commit=commit, dirty=dirty)
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
            state, why = _as_a_point(run_status(run_folder(planned), jobs))
            goes_on = state not in (*LIVE, "new") and one.config.sweep.on_existing != "force"
            try:
                if goes_on and (facts := data.facts(planned.config.data)):
                    check_same_data(run_folder(planned), facts.fingerprint)
                points.append(Point(one, planned, state, why))
            except UserError as error:
                points.append(Point(one, None, "invalid", str(error)))
    return points


def state_of(plan: Plan) -> tuple[str, str]:
    """Where a plan's run stands, in a sweep's words, and why."""
    folder = run_folder(plan)
    return _as_a_point(run_status(folder, states_of_jobs([folder])))


def to_start(points: Sequence[Point], on_existing: str) -> list[Plan]:
    """The plans that a sweep starts, or goes on with."""
    return [point.plan for point in points if point.plan and point.state in STARTED_BY[on_existing]]


def _as_a_point(status: RunStatus) -> tuple[str, str]:
    return {"planned": "new", "finished": "done"}.get(status.state, status.state), status.why


def _resolved(config: Config, launcher: Launcher, data: DataResolver) -> Config:
    """The config with what depends on this machine and folder spelled out, so that a plan runs from anywhere."""
    config = copy.deepcopy(launcher.resolve(config))
    config.data = data.resolve(config.data)
    if config.tracking.enabled:
        uri = config.tracking.uri
        config.tracking.uri = absolute_uri(uri) if uri else default_uri(Path.cwd())
    return config
