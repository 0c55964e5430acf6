"""`cluster.elastic`: a run that waits for nodes which are out of service is planned again on those that are not.

The run stays what it is, for the layout decides nothing that is learned: its queued job is cancelled, and the run is
submitted again with another plan. It goes on from its checkpoint there.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from megdet.errors import UserError
from megdet.launchers.jobs import stands_of
from megdet.launchers.slurm.client import SlurmClient, SlurmError
from megdet.launchers.slurm.discovery import Cluster, discover
from megdet.launchers.slurm.fitting import check_fits, fit
from megdet.launchers.slurm.job_states import SlurmQueue
from megdet.launchers.slurm.limits import Limits, read_limits
from megdet.launchers.slurm.resources import Resources
from megdet.launchers.slurm.submission import Submission
from megdet.planning.plan import Plan, make_plan
from megdet.runs.folder import RunFolder, folder_of
from megdet.runs.status import Stand, Status

EVERY_S = 30.0
"""Between two questions to Slurm about nodes."""
CANCEL_S = 60.0
"""For Slurm to let go of a cancelled job."""
NOT_FOR_NODES = ("Dependency", "BeginTime", "JobHeldUser", "JobHeldAdmin")
"""Reasons to wait that other nodes would not take away."""


class Service:
    """The nodes that are in service, asked once."""

    def __init__(self, client: SlurmClient) -> None:
        self._client = client

    def for_job_of(self, plan: Plan) -> Cluster:
        """What one job of a plan's size may have of them. Raises SlurmError."""
        found, limits = self._found
        return limits.within(found, plan.config.cluster, gpus_per_node=plan.layout.gpus_per_node)

    @cached_property
    def _found(self) -> tuple[Cluster, Limits]:
        return discover(self._client.call), read_limits(self._client.call)


def planned_again(plan: Plan, service: Service) -> Plan | None:
    """An elastic run on the nodes that are in service; None where it may stay as it is, or has no other place."""
    if not plan.config.cluster.elastic:
        return None
    partition = os.environ.get("SBATCH_PARTITION")
    try:
        found = service.for_job_of(plan)
        if _fits(plan, found, partition):
            return None
        moved = make_plan(
            fit(plan.config, found, partition=partition),
            commit=plan.commit,
            dirty=plan.dirty,
            keep_epochs=plan.keep_epochs,
            code=plan.code,  # on another layout it would not take over another run's epochs to the same bits: no fork
        )
        return moved if _fits(moved, found, partition) else None
    except (SlurmError, UserError):
        return None  # nothing is known, or nothing is there: it waits on


def _fits(plan: Plan, found: Cluster, partition: str | None) -> bool:
    try:
        check_fits(plan, found, time_min=Resources.of(plan).time_min, partition=partition)
    except UserError:
        return False
    return True


class Moves:
    """Moves the queued runs of a launch to nodes that are in service."""

    def __init__(
        self,
        plans: Sequence[Plan],
        *,
        client: SlurmClient,
        hand_over: Callable[[Sequence[Plan], Sequence[Submission]], None],
        every_s: float = EVERY_S,
    ) -> None:
        """`hand_over(plans, before)` submits runs that had a job before."""
        self._plans = {folder_of(plan): plan for plan in plans if plan.config.cluster.elastic}
        self._client, self._hand_over, self._every_s = client, hand_over, every_s
        self._queue = SlurmQueue(client)
        self._looked_at: float | None = None
        self._waiting_since: dict[RunFolder, float] = {}
        """When a run was first seen to have no place."""

    def look_at_once(self, folders: Sequence[RunFolder]) -> None:
        """Somebody asks for these runs again: those that have no place are moved, however short they have waited."""
        elastic = [folder for folder in folders if folder in self._plans]
        self._move(stands_of(elastic) if elastic else {}, at_once=True)

    def look(self, stands: Mapping[RunFolder, Stand]) -> None:
        """Now and then: move those that have had no place for `cluster.elastic_after_min`."""
        now = time.monotonic()
        if self._plans and (self._looked_at is None or now - self._looked_at >= self._every_s):
            self._looked_at = now
            self._move(stands, at_once=False)

    def _move(self, stands: Mapping[RunFolder, Stand], *, at_once: bool) -> None:
        jobs: dict[RunFolder, Submission] = {}
        for folder, stand in stands.items():
            if folder in self._plans and stand.status in (Status.QUEUED, Status.REQUEUED):
                submission = Submission.read(folder)
                if submission:
                    jobs[folder] = submission
        known = self._queue.states([submission.job for submission in jobs.values()])
        waiting = {
            folder: submission
            for folder, submission in jobs.items()
            if known[submission.job].state == "pending" and known[submission.job].reason not in NOT_FOR_NODES
        }
        for folder in self._waiting_since.keys() - waiting.keys():
            del self._waiting_since[folder]
        service = Service(self._client)
        for folder, submission in waiting.items():
            # What is queued is the plan in the folder; it may be of an earlier launch.
            queued = _queued_plan(folder, self._plans[folder])
            moved = planned_again(queued, service)
            if moved is None:
                self._waiting_since.pop(folder, None)
                continue
            since = self._waiting_since.setdefault(folder, time.monotonic())
            patience_s = 0.0 if at_once else 60 * moved.config.cluster.elastic_after_min
            if time.monotonic() - since >= patience_s and self._cancelled(submission):
                _say(queued, moved)
                del self._waiting_since[folder]
                try:
                    self._hand_over([moved], [submission])
                except UserError as error:  # the others are watched on
                    print(f"{folder.name}: {error}; give the same line again", file=sys.stderr, flush=True)

    def _cancelled(self, submission: Submission) -> bool:
        """Whether Slurm has let go of a job; one that has just begun writes a checkpoint first."""
        try:
            self._client.cancel(submission.job)
        except SlurmError:
            return False
        until = time.monotonic() + CANCEL_S
        while self._queue.states([submission.job])[submission.job].is_live:
            if time.monotonic() > until:
                return False
            time.sleep(0.5)
        return True


def _queued_plan(folder: RunFolder, asked: Plan) -> Plan:
    """The plan that a run was submitted with, as elastic as it is asked for now."""
    try:
        queued = Plan.from_json(folder.plan.read_text())
    except (UserError, OSError):
        return asked
    cluster = replace(queued.config.cluster, elastic=True, elastic_after_min=asked.config.cluster.elastic_after_min)
    return replace(queued, config=replace(queued.config, cluster=cluster))


def _say(queued: Plan, moved: Plan) -> None:
    shapes = [Resources.of(plan).describe().partition(",")[0] for plan in (queued, moved)]
    print(
        f"{queued.run_id}: the nodes that it waits for are out of service; {shapes[1]} instead of {shapes[0]}, with "
        f"images_per_gpu={moved.layout.images_per_gpu} and accumulation {moved.layout.accumulation}: the same run",
        flush=True,
    )
