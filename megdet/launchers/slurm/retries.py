"""What the infrastructure has ended is started again, up to cluster.max_retries times without progress."""

from __future__ import annotations

from dataclasses import replace

from megdet.launchers.slurm.submission import Submission
from megdet.runs.folder import RunFolder
from megdet.runs.status import Status


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


def lost_its_job(folder: RunFolder) -> bool:
    """Whether the last attempt of this job ended by neither its own doing nor a signal: a node failed, most likely.

    Slurm starts such a job again by itself. Ranks on other nodes may have said that they lost their connection.
    """
    state, submission = folder.state(), Submission.read(folder)
    if state is None or submission is None or state.attempts <= submission.attempts_before:
        return False
    return state.status in (Status.RUNNING, Status.FAILED)
