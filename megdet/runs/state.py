"""state.json: how far a run has come."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from megdet.runs.checked import checked
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
    gpu_s: float | None = None
    """GPU-seconds of training and evaluation that the run has spent itself, each attempt's on its own GPUs; None: not
    counted, in states of before it was."""
    step: int = 0
    """Optimizer steps done."""
    reason: str | None = None
    """One line on why the run diverged, failed or was interrupted."""
    journal_bytes: int | None = None
    """Size of the journal when the attempt ended; a shorter one has lost its end."""

    @property
    def own_s(self) -> float:
        """Seconds of training and evaluation that the run has spent itself."""
        return self.train_s + self.eval_s - self.shared_s

    def gpu_hours(self, gpus: int) -> float:
        """GPU-hours that the run has spent itself. `gpus`: of its plan, for states that have not counted."""
        return (self.own_s * gpus if self.gpu_s is None else self.gpu_s) / 3600

    def gpus(self, planned: int) -> int | float:
        """The GPUs that it has trained on: those of its plan, or where it had others before, the mean over its time."""
        if self.gpu_s is None or self.own_s <= 0 or math.isclose(self.gpu_s, self.own_s * planned, rel_tol=1e-3):
            return planned
        return round(self.gpu_s / self.own_s, 2)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> RunState:
        """Raises ValueError where `values` are no state."""
        if isinstance(values, Mapping) and "state" in values:  # as megdet 0.1 called it
            values = {"status": values["state"], **{key: value for key, value in values.items() if key != "state"}}
        state = checked(cls, values)
        numbers = (state.step, state.train_s, state.eval_s, state.shared_s, state.journal_bytes or 0, state.gpu_s or 0)
        if state.attempts < 1 or min(numbers) < 0:
            raise ValueError("a number in it is below what it can be")
        for moment in (state.started, state.ended):
            if moment is not None:
                datetime.fromisoformat(moment)
        return state
