"""failure.json: what ended a run, in the words of the rank that failed first."""

from __future__ import annotations

import traceback
from dataclasses import asdict, dataclass
from typing import Any

from megdet.errors import UserError
from megdet.runs.checked import checked
from megdet.runs.times import now

LAST_LOG_LINES = 40
NO_PROGRESS = "NoProgress"
RANK_DIED = "RankDied"
"""Stands for the error of a rank that could not say anything any more."""


@dataclass(frozen=True)
class Failure:
    """What ended a run."""

    rank: int | None
    """None where it is not known which rank was the first."""
    error: str
    """Name of the exception, or RANK_DIED."""
    reason: str
    """Its message; one line where nothing more is known."""
    traceback: str = ""
    log: tuple[str, ...] = ()
    """The last lines that the rank wrote."""
    time: str = ""
    """ISO 8601 with time zone."""

    @classmethod
    def of_exception(cls, error: BaseException, *, rank: int, reason: str, log: tuple[str, ...]) -> Failure:
        """What `record` keeps of an exception that ended a rank."""
        text = "".join(traceback.format_exception(error))
        name = UserError.__name__ if isinstance(error, UserError) else type(error).__name__
        return cls(rank, name, reason, text, log, now())

    @classmethod
    def of_death(cls, rank: int | None, reason: str, *, log: tuple[str, ...]) -> Failure:
        """What a launcher says of a rank that died without a word."""
        return cls(rank, RANK_DIED, reason, "", log, now())

    @classmethod
    def of_hang(cls, rank: int, reason: str, *, stack: str, log: tuple[str, ...]) -> Failure:
        """What a watchdog says of a rank that makes no progress; `stack` is where the one that says it stands."""
        return cls(rank, NO_PROGRESS, reason, stack, log, now())

    @property
    def says_why(self) -> bool:
        """Whether the rank itself told what went wrong."""
        return self.error != RANK_DIED

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> Failure:
        """Raises ValueError where `values` are no failure."""
        return checked(cls, values)
