"""One start of one job, as its own processes see it, and its right to a run's folder."""

from __future__ import annotations

import os
from dataclasses import dataclass

import submitit

from megdet.runs.folder import LostOwnership, RunFolder


@dataclass(frozen=True)
class SlurmAttempt:
    """What the processes of a job know of it."""

    job: str
    """`123`, or `123_4` of an array."""
    array: str
    """The job that was submitted."""
    restarts: int
    """How often it has been requeued."""

    @classmethod
    def here(cls) -> SlurmAttempt | None:
        """None outside of the jobs that submitit submits to Slurm."""
        try:
            job = submitit.JobEnvironment()
        except RuntimeError:
            return None
        if job.cluster != "slurm":
            return None
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))  # not among what submitit gives
        return cls(job.job_id, job.array_job_id or job.job_id, restarts)

    def name(self, submission: str) -> str:
        """Of the attempt, as the owner of a run's folder: `megdet-1120-120000-ab12-1:123_4.0`.

        The submission's name comes first: job ids start anew on each cluster.
        """
        return f"{submission}:{self.job}.{self.restarts}"

    def claim(self, folder: RunFolder, submission: str) -> RunFolder:
        """The folder, owned by this attempt from now on.

        Its launcher has claimed it for the submission, an earlier start of this job for itself. Whoever else owns it
        came later (the run was handed over again, or is run on some machine): raises LostOwnership.
        """
        earlier = [SlurmAttempt(self.job, self.array, start).name(submission) for start in range(self.restarts + 1)]
        owner = folder.current_owner()
        if owner not in (None, submission, *earlier):
            raise LostOwnership(f"{folder.path} belongs to {owner} now, not to job {self.job} of {submission}")
        return folder.claim(self.name(submission))
