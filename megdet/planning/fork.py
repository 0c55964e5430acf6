"""Runs with the same beginning: how many epochs two plans share, and where one goes on from the other.

`schedule=long` is `normal` until the first drop of the learning rate, and a run that is asked for with more epochs is
the one of before until that one's end. Such epochs need training only once.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from megdet.planning.identity import settings_but_schedule

if TYPE_CHECKING:
    from megdet.planning.plan import Plan


@dataclass(frozen=True)
class Fork:
    """Where a run goes on from another one."""

    run_id: str
    """The run whose first epochs are this one's too, in the same folder of runs."""
    epoch: int
    """So many they are."""


def beginning_of(plan: Plan) -> str:
    """What a step does, apart from its learning rate, as text: only runs in which it is equal can share epochs.

    The layout is part of it, for the last bits of a sum depend on it.
    """
    return json.dumps(
        [settings_but_schedule(plan.config), asdict(plan.layout), plan.recipe, plan.config.cluster.request_gpus],
        sort_keys=True,
    )


def shared_epochs(one: Plan, other: Plan) -> int:
    """The epochs that two runs have in common from their beginning, bit for bit; 0 where they differ from the start.

    Data, seed, recipe, layout and kind of device must be the same, all settings but the schedule's too, and the
    learning rate of every step of these epochs. A schedule of one's own shares none: only the ranks know what it does.
    """
    if beginning_of(one) != beginning_of(other) or _has_own_schedule(one) or _has_own_schedule(other):
        return 0
    first, second = one.schedule, other.schedule
    if (first.steps_per_epoch, _rise(one)) != (second.steps_per_epoch, _rise(other)):
        return 0
    # After the warm-up the learning rate changes at the beginning of an epoch or not at all.
    epochs = min(first.epochs, second.epochs)
    begins = (epoch * first.steps_per_epoch for epoch in range(epochs))
    differing = (epoch for epoch, step in enumerate(begins) if first.lr_at(step) != second.lr_at(step))
    return next(differing, epochs)


def _rise(plan: Plan) -> tuple[float, float, int]:
    """The warm-up, and the full learning rate that it rises to."""
    return plan.schedule.lr, plan.schedule.warmup_lr, plan.schedule.warmup_steps


def _has_own_schedule(plan: Plan) -> bool:
    return plan.config.schedule.custom is not None
