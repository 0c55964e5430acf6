"""Where a run stands: the one place that joins its own word (state.json), the folder's lock, and its job's state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from megdet.errors import UserError
from megdet.launchers.job_states import JobState, job_states
from megdet.launchers.ledger import Submission
from megdet.launchers.local import is_being_run
from megdet.runs.folder import RunFolder
from megdet.runs.state import RunState
from megdet.runs.status import Status

NOT_STARTED_WAITS = ("Priority", "Resources", "None", "")


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands and, in a line, why."""

    status: Status
    why: str = ""


def states_of_jobs(folders: Iterable[RunFolder]) -> dict[str, JobState]:
    """The states of the jobs that runs were handed over to and may not be done with; one question to Slurm."""
    jobs = []
    for folder in folders:
        with suppress(UserError, OSError):  # damaged: `run_status` says so, of that run alone
            submission = Submission.read(folder)
            if submission and not ((state := folder.state()) and state.status.is_result):
                jobs.append(submission.job)
    return job_states(jobs)


def run_status(folder: RunFolder, states: Mapping[str, JobState] | None) -> RunStatus:
    """Where the run of a folder stands; `states` are those of the jobs (`states_of_jobs`), None where nobody asked."""
    state, submission = folder.state(), Submission.read(folder)
    if state and state.status.is_result:
        return RunStatus(state.status, state.reason or "")
    if is_being_run(folder):
        return RunStatus(Status.RUNNING, "on this machine")
    if submission:
        job = (states or {}).get(submission.job, JobState("unknown"))
        if job.name and job.name != submission.name:
            job = JobState("gone", reason="the number of its job belongs to another one now")
        return _of_a_job(state, submission, job)
    if state is None:
        return RunStatus(Status.NEW)
    if state.status == Status.RUNNING:
        return RunStatus(Status.INTERRUPTED, "its launcher is gone")
    return RunStatus(state.status, state.reason or "")


def _of_a_job(state: RunState | None, submission: Submission, job: JobState) -> RunStatus:
    own = state if state and state.attempts > submission.attempts_before else None
    name = f"job {submission.job}"
    if job.state == "pending":
        waits = f"{name} waits" + (f": {job.reason}" if job.reason not in NOT_STARTED_WAITS else "")
        return RunStatus(Status.REQUEUED, waits) if own else RunStatus(Status.QUEUED, waits)
    if job.state in ("running", "completing"):
        if job.state == "completing" and own and own.status in (Status.FAILED, Status.INTERRUPTED):
            return RunStatus(own.status, own.reason or "")
        return RunStatus(Status.RUNNING, name if own and own.status == Status.RUNNING else f"{name} starts")
    if job.state == "unknown":
        if own is None:
            return RunStatus(Status.QUEUED, job.reason or f"{name} was submitted")
        return RunStatus(own.status, own.reason or job.reason)
    if submission.cancelled or job.state == "cancelled":
        return RunStatus(Status.CANCELLED, f"{name} was cancelled")
    if own and own.status in (Status.FAILED, Status.INTERRUPTED):
        return RunStatus(own.status, own.reason or "")
    if job.state == "gone" and not Path(submission.log).exists():
        # Slurm forgets at once what is cancelled before it has begun.
        return RunStatus(Status.CANCELLED, f"{name} is gone and never began")
    return _without_a_word(job, name)


def _without_a_word(job: JobState, name: str) -> RunStatus:
    """The job is over and its ranks did not say how."""
    match job.state:
        case "timeout":
            return RunStatus(Status.INTERRUPTED, f"{name} reached its time limit")
        case "preempted":
            return RunStatus(Status.INTERRUPTED, f"{name} had to make room")
        case "node_fail":
            return RunStatus(Status.INTERRUPTED, f"{name} lost a node")
        case "out_of_memory":
            return RunStatus(Status.FAILED, f"{name} was killed: out of main memory")
        case "gone":
            return RunStatus(Status.LOST, f"{name}: {job.reason}")
        case _:
            code = "" if job.exit_code is None else f" with exit code {job.exit_code}"
            return RunStatus(Status.FAILED, f"{name} ended{code} and did not say why")
