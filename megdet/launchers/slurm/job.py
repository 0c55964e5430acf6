"""Runs of a cluster as Slurm knows them: its word on a job and the ranks' word on the run, joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from megdet.errors import UserError
from megdet.launchers.interface import Job
from megdet.launchers.slurm.client import SlurmClient, SlurmError
from megdet.launchers.slurm.job_states import JobState, SlurmQueue
from megdet.launchers.slurm.pending import why_it_waits
from megdet.launchers.slurm.submission import Submission, mark_cancelled
from megdet.runs.canary import failed_canary
from megdet.runs.causes import HOST_MEMORY, NODE, TIME_LIMIT, Cause
from megdet.runs.folder import RunFolder
from megdet.runs.status import Stand, Status

CAUSES: dict[str, Cause] = {"node_fail": NODE, "timeout": TIME_LIMIT, "out_of_memory": HOST_MEMORY}
"""By how Slurm says that a job ended."""
NOT_STARTED_WAITS = ("Priority", "Resources", "None", "")
"""Reasons to wait that need no mention."""


@dataclass(frozen=True)
class SlurmJob:
    """The job that a run was handed to last."""

    folder: RunFolder
    submission: Submission
    ask: Callable[[], JobState]
    """What Slurm says of it; asked when that is needed."""
    client: SlurmClient = field(default_factory=SlurmClient)

    def stand(self) -> Stand:
        stand = self._stand()
        if stand.status != Status.CANCELLED or self.submission.cancelled or not self.submission.canaries:
            return stand
        if canary := failed_canary(self.folder):
            failure = canary.failure()
            reason = failure.reason.partition("\n")[0] if failure else "see there"
            return Stand(Status.CANCELLED, f"canary {canary.name} failed: {reason}")
        if any(not _is_over(RunFolder(Path(path))) for path in self.submission.canaries):
            return Stand(Status.CANCELLED, f"{stand.why}; the canary that it waited for came to no end")
        return stand

    def _stand(self) -> Stand:
        # Slurm first: of a run that ends in between, its own word is then the last one.
        known, name, state = self.ask(), f"job {self.submission.job}", self.folder.state()
        if state and state.status.is_result:
            return Stand(state.status, state.reason or "")
        own = state if state and state.attempts > self.submission.attempts_before else None
        over = own is not None and own.status in (Status.FAILED, Status.INTERRUPTED)
        if known.state == "pending":
            if self.submission.canaries and known.reason == "Dependency":
                return Stand(Status.QUEUED, f"{name} waits for its canary")
            wait, advice = why_it_waits(known.reason)
            waits = f"{name} {wait.value}" + (f": {known.reason}" if known.reason not in NOT_STARTED_WAITS else "")
            waits += f" ({advice.replace('JOB', self.submission.job)})" if advice else ""
            return Stand(Status.REQUEUED if own else Status.QUEUED, waits)
        if known.state == "completing":
            # Its processes end, or the node's epilog runs: only then Slurm puts back into the queue what was requeued.
            goes_on = own is not None and own.status == Status.INTERRUPTED and not self.submission.cancelled
            return Stand(Status.REQUEUED if goes_on else Status.RUNNING, f"{name} is ending")
        if known.state == "running":
            return Stand(Status.RUNNING, name if own and own.status == Status.RUNNING else f"{name} starts")
        if known.state == "unknown":
            if own is None:
                return Stand(Status.QUEUED, known.reason or f"{name} was submitted")
            return Stand(own.status, own.reason or known.reason)
        if self.submission.cancelled or known.state == "cancelled":
            return Stand(Status.CANCELLED, f"{name} was cancelled")
        if own and over:
            return Stand(own.status, own.reason or "")
        if known.state == "gone" and not self.log.exists():
            # Slurm forgets at once what is cancelled before it has begun.
            return Stand(Status.CANCELLED, f"{name} is gone and never began")
        return _without_a_word(known, name)

    def cancel(self) -> None:
        try:
            self.client.cancel(self.submission.job)
        except SlurmError as error:
            raise UserError(f"job {self.submission.job} was not cancelled: {error}") from None
        mark_cancelled(self.folder)

    @property
    def log(self) -> Path:
        return Path(self.submission.log)

    def cause(self) -> Cause | None:
        return CAUSES.get(self.ask().state)


class SlurmJobs:
    """Finds the jobs of runs; what is known of sacct in one look is known in the next."""

    def __init__(self, client: SlurmClient | None = None) -> None:
        self._client = client or SlurmClient()
        self._queue = SlurmQueue(self._client)

    def find(self, folders: Sequence[RunFolder]) -> dict[RunFolder, Job]:
        """One question to Slurm, about those jobs that may still matter; none about runs that have a result."""
        submissions: dict[RunFolder, Submission] = {}
        open_jobs: list[str] = []
        for folder in folders:
            with suppress(UserError, OSError):  # damaged: who asks about that run is told
                submission = Submission.read(folder)
                if submission is None:
                    continue
                state = folder.state()
                submissions[folder] = submission
                if not (state and state.status.is_result):
                    open_jobs.append(submission.job)
        asked = cache(lambda: self._queue.states(open_jobs))

        def ask(submission: Submission) -> JobState:
            return _own(asked().get(submission.job, JobState("unknown")), submission)

        return {folder: SlurmJob(folder, one, partial(ask, one), self._client) for folder, one in submissions.items()}


def _is_over(canary: RunFolder) -> bool:
    state = canary.state()
    return state is not None and state.status.is_result


def _own(known: JobState, submission: Submission) -> JobState:
    """A cluster that was set up anew counts its jobs from 1 again."""
    if known.name and known.name != submission.name:
        return JobState("gone", reason="the number of its job belongs to another one now")
    return known


def _without_a_word(known: JobState, name: str) -> Stand:
    """The job is over and its ranks did not say how."""
    match known.state:
        case "timeout":
            return Stand(Status.INTERRUPTED, f"{name} reached its time limit")
        case "preempted":
            return Stand(Status.INTERRUPTED, f"{name} had to make room")
        case "node_fail":
            return Stand(Status.INTERRUPTED, f"{name} lost a node")
        case "out_of_memory":
            return Stand(Status.FAILED, f"{name} was killed: out of main memory")
        case "gone":
            return Stand(Status.LOST, f"{name}: {known.reason}")
        case _:
            code = "" if known.exit_code is None else f" with exit code {known.exit_code}"
            return Stand(Status.FAILED, f"{name} ended{code} and did not say why")
