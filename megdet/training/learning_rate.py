"""The learning rate of every step: that of the plan's schedule, or one's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

from megdet.planning.schedule import Schedule
from megdet.settings.own_part import failed_trial, make, misfit


class LearningRate(Protocol):
    """What a schedule of one's own is; `megdet.planning.schedule.Schedule` is one.

    `_target_` is called with the plan's `Schedule` (full rate, warm-up, milestones, epochs and their steps) and the
    user's arguments. What it makes of the plan's warm-up and milestones is its own affair.
    """

    def lr_at(self, step: int) -> float:
        """The learning rate of the step that follows `step` finished ones: a function of `step` alone.

        Resumed runs ask from the middle on.
        """


def build_learning_rate(custom: Mapping[str, Any] | None, planned: Schedule) -> LearningRate:
    """What is planned, or the user's own. Raises UserError for an own one that is no `LearningRate`."""
    if custom is None:
        return planned
    key = "schedule.custom"
    own = make(key, custom, planned)
    if not callable(getattr(own, "lr_at", None)):
        raise misfit(key, custom, f"it makes {type(own).__name__}, which has no method lr_at(step)")
    for step in (*range(0, planned.steps, planned.steps_per_epoch), planned.steps - 1):
        try:
            lr = own.lr_at(step)
        except Exception as error:
            raise failed_trial(key, custom, error) from error
        if isinstance(lr, bool) or not isinstance(lr, int | float) or not math.isfinite(lr) or lr < 0:
            raise misfit(key, custom, f"lr_at({step}) is {lr}, and not a finite number of at least 0")
    return own  # type: ignore[no-any-return]
