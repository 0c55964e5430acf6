"""What a rank knows about its job.

Each launcher has its own; training is handed one and knows no launcher.
"""

from __future__ import annotations

from typing import Protocol


class JobEnvironment(Protocol):
    """The job of this process, as far as training needs to know it."""

    def edits_since_submission(self) -> list[str]:
        """What was edited between submission and start, such as `plan` or `code`; [] where nothing was."""
        ...

    @property
    def can_requeue(self) -> bool:
        """Whether this process is in a job of its run that can go back into the queue."""
        ...

    def requeue(self) -> bool:
        """Put the job back into the queue, which ends its processes soon; False where that cannot be."""
        ...


class NoJob:
    """The environment of a rank that no queue started: nothing can be edited before it starts, or be requeued."""

    can_requeue = False

    def edits_since_submission(self) -> list[str]:
        return []

    def requeue(self) -> bool:
        return False
