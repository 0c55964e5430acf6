"""What a rank knows of the job that it is part of, and what it may ask of it."""

from __future__ import annotations

from typing import Protocol


class JobEnvironment(Protocol):
    """The job of a run, seen from inside; each launcher has its own."""

    def edits_since_submission(self) -> list[str]:
        """What has been edited since the run was handed over: `plan`, `code`."""

    @property
    def can_requeue(self) -> bool:
        """Whether this process is part of the job that was submitted for this run."""

    def requeue(self) -> bool:
        """Put the job back into the queue, which ends its ranks; False where that cannot be."""


class NoJob:
    """Of ranks that no queue has started: on this machine, or by hand."""

    def edits_since_submission(self) -> list[str]:
        return []

    @property
    def can_requeue(self) -> bool:
        return False

    def requeue(self) -> bool:
        return False
