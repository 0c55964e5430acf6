"""Where training begins to diverge: searches that ask for one value after the other, and are told how it went."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass

REACH = 64.0
"""A rate is sought between the first one divided by this, and multiplied by it."""


@dataclass(frozen=True)
class Edge:
    """The two values between which training begins to diverge; None: nothing tried was stable, or diverged."""

    stable: float | None
    diverged: float | None


Search = Generator[float, bool, Edge]
"""Yields values to try, is sent whether training was stable there, and returns the edge."""


def largest_stable(start: float, *, within: float) -> Search:
    """The largest stable value: by factors of 2 from `start` on until it is enclosed, then by bisection of its
    logarithm until what diverges is at most `within` times what is stable.

    It takes for granted that whatever is larger than a value that diverges diverges too.
    """
    stable: float | None = None
    diverged: float | None = None
    value = start
    while stable is None or diverged is None:
        if not start / REACH <= value <= start * REACH:
            return Edge(stable, diverged)
        if (yield value):
            stable, value = value, value * 2
        else:
            diverged, value = value, value / 2
    while diverged / stable > within:
        middle = _rounded(math.sqrt(stable * diverged))
        if not stable < middle < diverged:
            break
        if (yield middle):
            stable = middle
        else:
            diverged = middle
    return Edge(stable, diverged)


def fewest_stable(start: int, *, most: int, within: float) -> Search:
    """The smallest stable number of steps, 0 among them: from `start` on up to `most`, then down by bisection until it
    is at most `within` times one that diverges, or the two are neighbours.

    It takes for granted that whatever is larger than a stable number is stable too.
    """
    if (yield 0):
        return Edge(0, None)
    diverged, value = 0, min(max(start, 1), most)
    while not (yield value):
        if value >= most:
            return Edge(None, value)
        diverged, value = value, min(2 * value, most)
    stable = value
    while stable - diverged > 1 and stable > within * diverged:
        middle = round(math.sqrt(stable * diverged)) if diverged else stable // 2
        middle = min(max(middle, diverged + 1), stable - 1)
        if (yield middle):
            stable = middle
        else:
            diverged = middle
    return Edge(stable, diverged)


def _rounded(value: float) -> float:
    """To four digits, so that names of runs stay short."""
    return float(f"{value:.4g}")
