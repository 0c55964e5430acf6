"""What the infrastructure has ended is started again, up to cluster.max_retries times without progress."""

from __future__ import annotations

from dataclasses import replace

from megdet.launchers.slurm.submission import Submission
from megdet.runs.causes import Diagnosis
from megdet.runs.folder import RunFolder
from megdet.runs.status import Stand, Status


def count_retry(folder: RunFolder) -> bool:
    """Whether a failure of the infrastructure may be answered by one more start; counts it."""
    submission = Submission.read(folder)
    if submission is None:
        return False
    max_retries: int = folder.read_plan()["config"]["cluster"]["max_retries"]
    from_time = folder.checkpoint.stat().st_mtime if folder.checkpoint.exists() else 0.0
    retries = submission.retries + 1 if from_time == submission.retried_from else 1
    if retries > max_retries:
        return False
    replace(submission, retries=retries, retried_from=from_time).write(folder)
    return True


def ended_by_slurm(folder: RunFolder, stand: Stand, diagnosis: Diagnosis | None) -> bool:
    """Whether Slurm's side has ended a run's job for good, and neither the run's code nor somebody: a node failed, the
    job's script was killed, or its time was up where the site requeues nothing.
    """
    if stand.status == Status.INTERRUPTED:
        return True
    state = folder.state()
    silent = state is not None and state.status == Status.RUNNING  # its last task, which would say why, never ran
    return stand.status == Status.FAILED and (silent or (diagnosis is not None and diagnosis.cause.retried))


def carry_over(folder: RunFolder, before: Submission) -> None:
    """A run that was submitted again keeps count of its retries."""
    if (submission := Submission.read(folder)) is not None:
        replace(submission, retries=before.retries, retried_from=before.retried_from).write(folder)


def lost_its_job(folder: RunFolder) -> bool:
    """Whether the last attempt of this job ended by neither its own doing nor a signal: a node failed, most likely.

    Slurm starts such a job again by itself. Ranks on other nodes may have said that they lost their connection.
    """
    state, submission = folder.state(), Submission.read(folder)
    if state is None or submission is None or state.attempts <= submission.attempts_before:
        return False
    return state.status in (Status.RUNNING, Status.FAILED)
