"""Which runs go into which job array, and behind which canaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from megdet.launchers.slurm.resources import Array, arrays_of
from megdet.launchers.slurm.submission import Submission
from megdet.planning.plan import Plan
from megdet.runs.canary import Canary
from megdet.runs.folder import folder_of
from megdet.runs.prediction import predict_all
from megdet.runs.status import Status

MANY = 1_000_000
"""Stands for an array size that nobody has been asked for."""


def arrays_with_hours(plans: Sequence[Plan], *, max_array_size: int) -> list[Array]:
    """The arrays of plans, with time limits by their predicted hours."""
    hours = [predicted.alone_hours if predicted else None for predicted in predict_all(plans)]
    return arrays_of(plans, max_array_size=max_array_size, hours=hours)


def arrays_behind(plans: Sequence[Plan], canaries: Sequence[Canary], *, max_array_size: int) -> list[Array]:
    """The same, each with what it waits for; with a budget, which is that of all, every run waits for all canaries.

    Runs whose canary has failed by now are left out.
    """
    if not canaries:
        return arrays_with_hours(plans, max_array_size=max_array_size)
    arrays: list[Array] = []
    for canary in canaries:
        own = {plan.run_id for plan in canary.waiting}
        members = [plan for plan in plans if plan.run_id in own]
        awaited = [canary] if canary.plan.config.sweep.max_gpu_hours is None else canaries
        folders = tuple(folder_of(one.plan) for one in awaited)
        if any(state is not None and state.status == Status.FAILED for state in (one.state() for one in folders)):
            continue
        jobs = [Submission.read(folder_of(one.plan)) for one in awaited if not one.has_passed]
        running = tuple(submission.job for submission in jobs if submission)
        # The end of the canary lowers the longest time limit to what is needed (`let_go`).
        group = arrays_of if jobs else arrays_with_hours
        found = group(members, max_array_size=max_array_size)
        arrays += [replace(array, canaries=folders, canary_jobs=running) for array in found]
    return arrays
