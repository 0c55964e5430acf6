"""What another batch takes for the same result, by the gradient noise scale that a run has measured.

McCandlish et al. 2018 (arXiv 1812.06162, eq. 2.11 and appendix D): at a noise scale of N images, a batch of B makes the
progress of one step without noise in 1 + N/B steps, which are B + N images. At B = N, the critical batch, that is twice
the fewest steps and twice the fewest images. It takes for granted that each batch has its best learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class EpochNoise:
    """An epoch with its noise scale."""

    epoch: int
    scale: float
    """In images."""
    error: float | None
    """Its standard error; None where one step alone was measured."""


@dataclass(frozen=True)
class Estimate:
    value: float
    error: float | None
    """Standard error, from those of the epochs; None where one of them has none."""


class Progress:
    """What a run has gained in epochs of `steps` steps each, in steps without noise."""

    def __init__(self, epochs: Sequence[EpochNoise], *, batch: int, steps: int) -> None:
        """`epochs`: one at least; `batch`: the run's."""
        self._epochs = epochs
        self._gained = [steps / (1 + one.scale / batch) for one in epochs]
        self._slopes = [-(gained**2) / (steps * batch) for gained in self._gained]
        """Of what is gained, over the epoch's noise scale."""
        self._sum = math.fsum(self._gained)

    def critical_batch(self) -> Estimate:
        """The noise scale over all epochs: each counts by what it has gained."""
        products = [gained * one.scale for gained, one in zip(self._gained, self._epochs, strict=True)]
        value = math.fsum(products) / self._sum
        return self._estimate(
            value,
            [
                (gained + slope * (one.scale - value)) / self._sum
                for gained, slope, one in zip(self._gained, self._slopes, self._epochs, strict=True)
            ],
        )

    def images(self, batch: int) -> Estimate:
        """The images that a batch needs for what the run has gained in these epochs."""
        terms = list(zip(self._gained, self._slopes, self._epochs, strict=True))
        return self._estimate(
            math.fsum(gained * (batch + one.scale) for gained, _, one in terms),
            [gained + slope * (batch + one.scale) for gained, slope, one in terms],
        )

    def _estimate(self, value: float, slopes: Sequence[float]) -> Estimate:
        errors = [one.error for one in self._epochs]
        if None in errors:
            return Estimate(value, None)
        return Estimate(
            value, math.hypot(*(slope * (error or 0.0) for slope, error in zip(slopes, errors, strict=True)))
        )


def usual_batches(*, batch: int, bn_size: int, critical: float, most: int) -> list[int]:
    """From 16 images on, doubling up to beyond four times the critical batch, and the run's own; of whole BN batches.

    `most`: images of an epoch.
    """
    unit = max(1, bn_size)
    first = -(-min(16, batch) // unit) * unit
    doubled = [first * 2**power for power in range(12)]
    last = max(4 * critical, 2 * batch)
    kept = [one for one in doubled if one <= most and (one <= first or one / 2 < last)]
    return sorted({*kept, batch})
