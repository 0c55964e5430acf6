"""What a rank of a run knows of the job of Slurm's that it is part of, and how that gets back into the queue."""

from __future__ import annotations

import logging
from functools import cached_property

from megdet.launchers.slurm.attempt import SlurmAttempt
from megdet.launchers.slurm.client import SlurmClient, SlurmError
from megdet.launchers.slurm.submission import Submission
from megdet.runs.folder import RunFolder

log = logging.getLogger("megdet")


class SlurmJobEnvironment:
    """The job of a run, seen from inside."""

    def __init__(self, folder: RunFolder, client: SlurmClient | None = None) -> None:
        self._folder, self._client = folder, client or SlurmClient()

    def edits_since_submission(self) -> list[str]:
        submission = Submission.read(self._folder)
        return submission.edits_since(self._folder) if submission else []

    @cached_property
    def _own_job(self) -> str | None:
        """None for a process in somebody's shell in a job, or in a job that the run had before."""
        attempt, submission = SlurmAttempt.here(), Submission.read(self._folder)
        return attempt.job if attempt and submission and submission.job == attempt.job else None

    @property
    def can_requeue(self) -> bool:
        return self._own_job is not None

    def requeue(self) -> bool:
        if self._own_job is None:
            return False
        try:
            self._client.requeue(self._own_job)
        except SlurmError as error:
            log.warning("job %s could not be requeued (%s); launched again, the run goes on", self._own_job, error)
            return False
        return True
