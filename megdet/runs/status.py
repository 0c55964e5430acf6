"""The status of a run: one word, the same in files, code, MLflow, tables and on the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from megdet.errors import printable


class Status(StrEnum):
    """The status of a run, from `new` to `lost`."""

    NEW = "new"
    """Planned, never started."""
    QUEUED = "queued"
    """Its job waits."""
    RUNNING = "running"
    REQUEUED = "requeued"
    """Its job had to make room and waits to go on."""
    FINISHED = "finished"
    DIVERGED = "diverged"
    """Training exploded: a result (`failed` in the paper's Table 2), not an error."""
    FAILED = "failed"
    """An error ended it."""
    INTERRUPTED = "interrupted"
    """Asked to stop; goes on from its checkpoint when launched again."""
    CANCELLED = "cancelled"
    LOST = "lost"
    """Its job is gone and did not say how it ended."""

    @property
    def is_result(self) -> bool:
        """Whether training has come to its end; such a run is not started again unless all is begun anew."""
        return self in (Status.FINISHED, Status.DIVERGED)

    @property
    def is_live(self) -> bool:
        """Whether the run is under way; it is never started a second time."""
        return self in (Status.QUEUED, Status.RUNNING, Status.REQUEUED)

    @property
    def can_go_on(self) -> bool:
        """Whether the run stopped without a result and without an error."""
        return self in (Status.INTERRUPTED, Status.CANCELLED, Status.LOST)


@dataclass(frozen=True)
class Stand:
    """The status of a run, with the reason in a line."""

    status: Status
    why: str = ""

    def __post_init__(self) -> None:
        if not self.why.isprintable():  # words of an error, or of a damaged file
            object.__setattr__(self, "why", printable(" ".join(self.why.split())))
