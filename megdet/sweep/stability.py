"""The edge of stability of experiments, by short trainings: the largest learning rate, and the shortest warm-up.

Each probe is a run of its own, in `.stability` of the folder of runs; whether it diverged is what training itself says
(`megdet.training.divergence`). All experiments are sought at once: in each round, their next probes are one sweep.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from megdet.config.experiments import Asked
from megdet.config.schema import Config
from megdet.config.sweep import SweepSettings
from megdet.errors import ExitCode, UserError
from megdet.launchers.interface import Launcher
from megdet.planning.plan import Plan
from megdet.runs.folder import folder_of
from megdet.runs.run_files import PROBES
from megdet.runs.status import Status
from megdet.sweep.bisection import Edge, Search, fewest_stable, largest_stable
from megdet.sweep.objective import with_repeated
from megdet.sweep.points import plan_points
from megdet.sweep.sweep import run_points

RATE, WARMUP = "rate", "warmup"


@dataclass(frozen=True)
class Probe:
    """One value that was tried, with all seeds."""

    kind: str
    """`rate` or `warmup`."""
    value: float
    """Of `lr.scale`; or steps of warm-up."""
    is_stable: bool
    runs: tuple[str, ...]


@dataclass
class Row:
    """One experiment, and what is found of it."""

    asked: Asked
    plan: Plan
    """That of the experiment at its own learning rate, as long as its probes are."""
    probes: list[Probe] = field(default_factory=list)
    rate: Edge | None = None
    """In `lr.scale`."""
    warmup: Edge | None = None
    """In steps; None: it has no warm-up, for its learning rate is not above where that would begin."""
    why: str = ""
    """Why it was given up."""

    @property
    def runs(self) -> int:
        """That its probes took, each counted once."""
        return len({run for probe in self.probes for run in probe.runs})

    @property
    def lr(self) -> float:
        """The learning rate at which `lr.scale` is 1."""
        return self.plan.schedule.lr / self.plan.config.lr.scale


@dataclass
class _Sought:
    row: Row
    kind: str
    search: Search
    value: float


class Interrupted(Exception):
    """Probes are not over; the same command goes on with them."""

    def __init__(self, code: ExitCode) -> None:
        super().__init__("probes are not over")
        self.code = code


def find_edges(
    asked: Sequence[Asked], *, launcher: Launcher, steps: int, within: float, seeds: Sequence[int]
) -> list[Row]:
    """The edges of each experiment, to a factor of `within`, by trainings of at least `steps` steps.

    A value is stable where it is with each of the `seeds`. Raises UserError where an experiment cannot be laid out,
    and Interrupted where probes have not come to their end.
    """
    rows = [_row(one, launcher, steps) for one in asked]
    sought = [each for row in rows for each in _searches(row, within)]
    said: set[str] = set()
    while sought:
        probes = [[_probe(each.row, each.kind, each.value, seed) for seed in seeds] for each in sought]
        together = [one for group in probes for one in group]
        code = run_points(together, launcher=launcher, said=said)
        points = with_repeated(plan_points(together, to_run_here=True, launcher=launcher))
        if together[0].config.sweep.dry_run or code == ExitCode.INTERRUPTED:
            raise Interrupted(code)
        left = []
        for number, each in enumerate(sought):
            of_seeds = points[number * len(seeds) : (number + 1) * len(seeds)]
            plans = [point.plan for point in of_seeds if point.plan]
            statuses = [point.status for point in of_seeds]
            if bad := [point for point in of_seeds if point.plan is None or point.status == Status.FAILED]:
                each.row.why = bad[0].why or "a probe failed"
                continue
            if not all(status and status.is_result for status in statuses):
                raise Interrupted(code or ExitCode.INTERRUPTED)
            is_stable = all(status == Status.FINISHED for status in statuses)
            for plan in plans:
                folder_of(plan).forget_checkpoints()  # nobody goes on from a probe
            each.row.probes.append(Probe(each.kind, each.value, is_stable, tuple(plan.run_id for plan in plans)))
            try:
                each.value = each.search.send(is_stable)
                left.append(each)
            except StopIteration as over:
                setattr(each.row, each.kind, over.value)
        sought = left
    return rows


def _row(asked: Asked, launcher: Launcher, steps: int) -> Row:
    """Raises UserError where the experiment cannot be laid out."""
    config = copy.deepcopy(asked.config)
    sweep = config.sweep
    config.sweep = SweepSettings(
        on_existing=sweep.on_existing, dry_run=sweep.dry_run, max_gpu_hours=sweep.max_gpu_hours, fork=False
    )
    config.runs_dir = str(Path(config.runs_dir) / PROBES)
    config.tracking.enabled = False
    config.schedule = replace(config.schedule, milestones=[], factors=[], epochs=1000)
    plan = _plan(Asked(asked.overrides, config), launcher)
    per_epoch = plan.schedule.steps_per_epoch
    longest = -(-plan.schedule.warmup_steps // per_epoch) + 1
    config.schedule.epochs = max(-(-steps // per_epoch), longest)
    probed = Asked(asked.overrides, config)
    return Row(probed, _plan(probed, launcher))


def _plan(asked: Asked, launcher: Launcher) -> Plan:
    [point] = plan_points([asked], to_run_here=False, launcher=launcher)
    if point.plan is None:
        raise UserError(" ".join([*asked.overrides, point.why]))
    return point.plan


def _searches(row: Row, within: float) -> list[_Sought]:
    schedule = row.plan.schedule
    searches = [(RATE, largest_stable(row.plan.config.lr.scale, within=within))]
    if schedule.warmup_steps:
        searches.append((WARMUP, fewest_stable(schedule.warmup_steps, most=schedule.steps // 2, within=within)))
    return [_Sought(row, kind, search, next(search)) for kind, search in searches]


def _probe(row: Row, kind: str, value: float, seed: int) -> Asked:
    config: Config = copy.deepcopy(row.asked.config)
    config.seed = seed
    if kind == RATE:
        config.lr.scale = value
        return Asked((f"lr.scale={value:g}", f"seed={seed}"), config)
    if value == row.plan.schedule.warmup_steps:  # the experiment as it is, which is a probe of the rate too
        return Asked((f"seed={seed}",), config)
    images = round(value) * config.batch
    config.schedule = replace(config.schedule, warmup_epochs=None, warmup_images=images)
    return Asked((f"schedule.warmup_images={images}", f"seed={seed}"), config)
