"""state.json: how far a run has come."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from megdet.runs.status import Status


@dataclass(frozen=True)
class RunState:
    """How far a run has come. Times in seconds are summed over its attempts, without the gaps between them."""

    status: Status
    """running, finished, diverged, failed or interrupted; what its job adds is for its launcher to say."""
    attempts: int
    """1-based; above 1 the run has been resumed."""
    started: str
    """ISO 8601 with time zone, of the first attempt."""
    ended: str | None = None
    train_s: float = 0.0
    eval_s: float = 0.0
    shared_s: float = 0.0
    """Seconds of `train_s` and `eval_s` that another run has spent, in the epochs that were taken over from it."""
    step: int = 0
    """Optimizer steps done."""
    reason: str | None = None
    """One line on why the run diverged, failed or was interrupted."""
    journal_bytes: int | None = None
    """Size of the journal when the attempt ended; a shorter one has lost its end."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> RunState:
        """Raises ValueError, TypeError or KeyError where `values` are no state."""
        if "state" in values:  # as megdet 0.1 called it
            values = {**values, "status": values["state"]}
            del values["state"]
        state = cls(**{**values, "status": Status(values["status"])})
        numbers = (state.attempts, state.train_s, state.eval_s, state.shared_s, state.step, state.journal_bytes or 0)
        if not all(isinstance(number, int | float) for number in numbers):
            raise ValueError("a number in it is none")
        if not all(isinstance(text, str) for text in (state.started, state.ended or "", state.reason or "")):
            raise ValueError("a text in it is none")
        datetime.fromisoformat(state.started)
        return state
