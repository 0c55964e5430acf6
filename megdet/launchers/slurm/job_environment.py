"""The job that this process is part of, and how it gets back into the queue."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

from megdet.launchers.client import SlurmError, call
from megdet.launchers.ledger import Submission
from megdet.runs.folder import RunFolder

log = logging.getLogger("megdet")


@dataclass(frozen=True)
class SlurmJob:
    """One job of Slurm's, as its processes see it."""

    id: str
    """`123`, or `123_4` of an array."""
    array: str
    """The job that was submitted."""
    restarts: int
    """How often it has been requeued."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> SlurmJob | None:
        """None outside of a job."""
        if "SLURM_JOB_ID" not in environment:
            return None
        array = environment.get("SLURM_ARRAY_JOB_ID", environment["SLURM_JOB_ID"])
        element = environment.get("SLURM_ARRAY_TASK_ID")
        return cls(
            id=array if element is None else f"{array}_{element}",
            array=array,
            restarts=int(environment.get("SLURM_RESTART_COUNT", "0")),
        )

    @property
    def attempt(self) -> str:
        """Tells one start of the job from another."""
        return f"{self.id}.{self.restarts}"


def is_in_own_job(run: RunFolder) -> bool:
    """Whether this process is part of the job that was submitted for a run (and not of somebody's shell in a job)."""
    job, submission = SlurmJob.from_environment(os.environ), Submission.read(run)
    return job is not None and submission is not None and submission.job == job.id


def requeue_own_job(run: RunFolder) -> bool:
    """Put the job that a run's ranks are part of back into the queue; Slurm ends what is left of it.

    False where that cannot be: outside of such a job, or where Slurm refuses.
    """
    job = SlurmJob.from_environment(os.environ)
    if job is None or not is_in_own_job(run):
        return False
    try:
        call("scontrol", "requeue", job.id)
    except SlurmError as error:
        log.warning("job %s could not be requeued (%s); launched again, the run goes on", job.id, error)
        return False
    return True
