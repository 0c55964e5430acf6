"""A canary: some steps and one evaluation batch of a run, in a short job of its own, before many hours are spent.

One stands for all runs that use a machine alike: the same layout, model and data. Seed, schedule and learning rate
make no difference to that. It runs the same copy of the code.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from megdet.config.schema import Config
from megdet.planning.plan import Plan, make_plan
from megdet.runs.folder import RunFolder, folder_of
from megdet.runs.run_files import CANARIES
from megdet.runs.status import Status

STEPS = 20
"""Optimizer steps, or as many as an epoch has."""
LONGEST_MIN = 30
"""Of the job of a canary."""


@dataclass(frozen=True)
class Canary:
    """A canary, and the runs that wait for it."""

    plan: Plan
    """That of the first of them, but for its place, its time limit, and that it is not tracked."""
    waiting: tuple[Plan, ...]

    @property
    def has_passed(self) -> bool:
        """Whether it has come to its end."""
        state = folder_of(self.plan).state()
        return state is not None and state.status.is_result


def canaries_of(plans: Sequence[Plan]) -> list[Canary]:
    """One canary for each shape of runs, in the order of its first run."""
    shapes: dict[str, list[Plan]] = {}
    for plan in plans:
        shapes.setdefault(_shape_of(plan), []).append(plan)
    return [Canary(_canary_plan(members[0]), tuple(members)) for members in shapes.values()]


def failed_canary(folder: RunFolder) -> RunFolder | None:
    """The canary that keeps a run from starting; None where it waits for none, or for one that is well."""
    waits_for = (folder.submission() or {}).get("canaries", ())
    for canary in (RunFolder(Path(path)) for path in waits_for):
        state = canary.state()
        if state is not None and state.status == Status.FAILED:
            return canary
    return None


def _shape_of(plan: Plan) -> str:
    """What decides whether a run fits, finds what it needs, and how long a step takes."""
    config, optimizer = plan.config, plan.config.optimizer
    of_steps = (optimizer.name, optimizer.custom, optimizer.agvm.interval, config.schedule.custom)
    # What is held beside weights, gradients and momenta.
    more = (optimizer.ema_decay is not None, config.noise_scale_every)
    settings = (asdict(part) for part in (config.model, config.data, config.eval, config.cluster))
    return json.dumps(
        [asdict(plan.layout), config.bn_size, config.precision, config.runs_dir, of_steps, more, *settings],
        sort_keys=True,
        default=str,
    )


def _canary_plan(plan: Plan) -> Plan:
    config: Config = copy.deepcopy(plan.config)
    config.runs_dir = str(Path(config.runs_dir) / CANARIES)
    config.tracking.enabled = False
    limit = config.cluster.time_min
    config.cluster.time_min = LONGEST_MIN if limit is None else min(limit, LONGEST_MIN)
    return make_plan(config, commit=plan.commit, dirty=plan.dirty, code=plan.code)
