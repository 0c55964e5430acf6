"""The points of a sweep: each experiment with its plan, or why there is none, and the status of its run."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from megdet.config.experiments import Asked
from megdet.config.schema import Config
from megdet.data.resolve import DataResolver
from megdet.errors import UserError
from megdet.launchers.interface import Launcher
from megdet.launchers.jobs import stands_of
from megdet.launchers.local.launcher import LocalLauncher
from megdet.model.weights import identify_weights
from megdet.planning.code_version import code_version
from megdet.planning.plan import Plan, make_plan
from megdet.runs.code import code_to_run
from megdet.runs.folder import folder_of
from megdet.runs.provenance import check_same_data
from megdet.runs.starting_point import check_start_fits, resolve_start
from megdet.runs.status import Status
from megdet.settings.paths import expanded
from megdet.tracking.uri import absolute_uri, default_uri

STARTED_BY: dict[str, Callable[[Status], bool]] = {
    "skip": lambda status: status == Status.NEW,
    "resume": lambda status: status == Status.NEW or status.can_go_on,
    "retry_failed": lambda status: status in (Status.NEW, Status.FAILED) or status.can_go_on,
    "force": lambda status: not status.is_live,
}
"""Which points a sweep starts, by `sweep.on_existing`. What is under way is never started twice."""


@dataclass(frozen=True)
class Point:
    """One experiment of a sweep, planned."""

    asked: Asked
    plan: Plan | None
    """None where it cannot be."""
    status: Status | None
    """Where its run stands; None where it has no run of its own: it cannot be, or repeats another point."""
    why: str = ""

    @property
    def shown(self) -> str:
        """The status, or `invalid`, or `repeated`."""
        if self.plan is None:
            return "invalid"
        return "repeated" if self.status is None else self.status

    def is_started_by(self, on_existing: str) -> bool:
        return self.status is not None and STARTED_BY[on_existing](self.status)


def plan_points(
    asked: Sequence[Asked], *, to_run_here: bool, launcher: Launcher | None = None, data: DataResolver | None = None
) -> list[Point]:
    """The plan of each experiment, or why there is none; nothing is started or written.

    `to_run_here`: plans that do not fit the launcher are invalid. `data` keeps the data sets that were read.
    """
    launcher, data = launcher or LocalLauncher(), data or DataResolver()
    commit, dirty = code_version()
    code = cache(code_to_run)
    plans: list[Plan | UserError] = []
    for one in asked:
        try:
            one.config.check()
            config = _resolved(one.config, launcher, data)
            plan = make_plan(config, commit=commit, dirty=dirty, code=code(config.runs_dir))
            if to_run_here:
                launcher.check(plan)
            plans.append(plan)
        except UserError as error:
            plans.append(error)
    stands = stands_of([folder_of(plan) for plan in plans if isinstance(plan, Plan)])
    points: list[Point] = []
    seen: set[str] = set()
    for one, planned in zip(asked, plans, strict=True):
        if isinstance(planned, UserError):
            points.append(Point(one, None, None, str(planned)))
        elif planned.run_id in seen:
            why = "the same run as one above: it differs in nothing that is learned"
            points.append(Point(one, planned, None, why))
        else:
            seen.add(planned.run_id)
            stand = stands[folder_of(planned)]
            is_there = stand.status != Status.NEW and not stand.status.is_live
            try:
                if is_there and one.config.sweep.on_existing != "force":
                    if facts := data.facts(planned.config.data, masks=planned.config.model.reads_masks):
                        check_same_data(folder_of(planned), facts.fingerprint)
                    if not stand.status.is_result:
                        folder_of(planned).check_checkpoint_is_there()
                points.append(Point(one, planned, stand.status, stand.why))
            except UserError as error:
                points.append(Point(one, None, None, str(error)))
    return points


def _usable(runs_dir: str) -> str:
    """The folder with `~` spelled out. Raises UserError where there is something else in its place."""
    path = expanded(runs_dir)
    for place in (path, *path.parents):
        if os.path.lexists(place):
            if not os.path.isdir(place):
                raise UserError(f"runs_dir={runs_dir}: {place} is no folder; name another one")
            break
    return str(path)


def to_start(points: Sequence[Point], on_existing: str) -> list[Plan]:
    """The plans that a sweep starts, or goes on with."""
    return [point.plan for point in points if point.plan and point.is_started_by(on_existing)]


def _resolved(config: Config, launcher: Launcher, data: DataResolver) -> Config:
    """The config with absolute paths and numbers of this machine, so that a plan runs from anywhere."""
    config = copy.deepcopy(launcher.resolve(config))
    config.runs_dir = _usable(config.runs_dir)
    config.data = data.resolve(config.data, masks=config.model.reads_masks)
    config.model.backbone = identify_weights(config.model.backbone)
    config.model = resolve_start(config.model, Path(config.runs_dir))
    check_start_fits(config)
    if config.tracking.enabled:
        uri = config.tracking.uri
        try:
            config.tracking.uri = absolute_uri(uri) if uri else default_uri(Path.cwd())
        except UserError as error:
            raise UserError(f"tracking.uri: {error}") from None
    return config
