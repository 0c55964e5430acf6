"""When a run has diverged: an outcome of the experiment (paper Table 2), not an error."""

from __future__ import annotations

import math
from dataclasses import dataclass

SMOOTHING_STEPS = 50
EXPLOSION_FACTOR = 5.0


class Diverged(Exception):
    """The training diverged; `reason` says how and `step` when (1-based)."""

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(f"diverged at step {step}: {reason}")
        self.step = step
        self.reason = reason


@dataclass
class LossWatch:
    """Follows the loss of the steps and raises `Diverged`.

    Diverged means a loss or gradient norm that is NaN or infinite, or a loss that, averaged exponentially over about
    50 steps, is more than 5 times its lowest value so far and above where it began. A training that merely stalls has
    not diverged. All ranks see the same loss, so all come to the same verdict.
    """

    smoothed: float = 0.0
    steps: int = 0
    first: float = math.inf
    lowest: float = math.inf

    def see(self, step: int, *, loss: float, grad_norm: float) -> None:
        """Take note of one step.

        Raises:
            Diverged: when this step shows it.
        """
        if not math.isfinite(loss):
            raise Diverged(step, f"the loss is {loss}")
        if not math.isfinite(grad_norm):
            raise Diverged(step, f"the gradient norm is {grad_norm} (loss {loss:.4g})")
        self.steps += 1
        # The plain mean of the first steps, the exponential one from then on.
        self.smoothed += (loss - self.smoothed) / min(self.steps, SMOOTHING_STEPS)
        if self.steps < SMOOTHING_STEPS:
            return
        if self.steps == SMOOTHING_STEPS:
            self.first = self.smoothed
        self.lowest = min(self.lowest, self.smoothed)
        if self.smoothed > max(EXPLOSION_FACTOR * self.lowest, self.first):
            raise Diverged(
                step, f"the smoothed loss is {self.smoothed:.4g}, {self.smoothed / self.lowest:.1f} times its lowest"
            )
