"""When a run has diverged: an outcome of the experiment (paper Table 2), not an error."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field

SMOOTHING_STEPS = 50
CLIP_FACTOR = 5.0
"""A step counts for at most so many times the smoothed loss."""
EXPLOSION_FACTOR = 5.0
EXPLOSION_STEPS = 20
"""In a row, so that a few bad batches end nothing."""
COLLAPSE_FACTOR = 1.5
COLLAPSE_STEPS = 500


class Diverged(Exception):
    """The training diverged; `reason` says how and `step` when (1-based)."""

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(f"diverged at step {step}: {reason}")
        self.step = step
        self.reason = reason


@dataclass
class LossWatch:
    """Follows the loss of the steps and raises `Diverged`.

    The smoothed loss is the median of the first 50 steps, and from then on an exponential average over about 50, in
    which no step counts for more than 5 times what was smoothed before it. A run has diverged where

    - a loss or gradient norm is NaN or infinite;
    - it exploded: for 20 steps in a row the smoothed loss is more than 5 times its lowest, and above where it began;
    - it collapsed: for 500 steps in a row the smoothed loss is more than 1.5 times its lowest, and more than half of
      what training had gained is lost again.

    A training that merely stalls has not diverged. All ranks see the same loss, so all come to the same verdict.
    """

    smoothed: float = 0.0
    steps: int = 0
    first: float = math.inf
    lowest: float = math.inf
    begin: list[float] = field(default_factory=list)
    """The losses of the first steps; empty after them."""
    exploded: int = 0
    """Steps in a row that look like an explosion."""
    collapsed: int = 0

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
        if self.steps < SMOOTHING_STEPS:
            self.begin.append(loss)
            return
        if self.steps == SMOOTHING_STEPS:
            self.smoothed = self.first = self.lowest = statistics.median([*self.begin, loss])
            self.begin = []
            return
        self.smoothed += (min(loss, CLIP_FACTOR * self.smoothed) - self.smoothed) / SMOOTHING_STEPS
        self.lowest = min(self.lowest, self.smoothed)
        exploded = self.smoothed > max(EXPLOSION_FACTOR * self.lowest, self.first)
        collapsed = self.smoothed > max(COLLAPSE_FACTOR * self.lowest, (self.first + self.lowest) / 2)
        self.exploded = self.exploded + 1 if exploded else 0
        self.collapsed = self.collapsed + 1 if collapsed else 0
        said = f"the smoothed loss is {self.smoothed:.4g}, its lowest was {self.lowest:.4g}"
        if self.exploded >= EXPLOSION_STEPS:
            raise Diverged(step, f"{said}, and it is above {EXPLOSION_FACTOR:g} times that for {EXPLOSION_STEPS} steps")
        if self.collapsed >= COLLAPSE_STEPS:
            raise Diverged(step, f"{said}, and it has not come back for {COLLAPSE_STEPS} steps")
