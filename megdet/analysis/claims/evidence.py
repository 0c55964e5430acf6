"""What runs say about the rows of the paper's tables: means over seeds, and how far chance reaches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from scipy.special import stdtrit

from megdet.analysis.by_row import by_row
from megdet.analysis.comparable import Group
from megdet.analysis.paper import RowKey
from megdet.analysis.runs import RunRecord

COLLAPSED = 0.1
"""Of the best run's mmAP: a detector that ends below has learned next to nothing, though its loss stayed finite."""
CONFIDENCE = 0.95

Measure = Callable[[RunRecord], float | None]
"""A number of a run; None where it has none."""


def final_mmAP(run: RunRecord) -> float | None:
    """COCO AP in percent after the last epoch; None unless the run has finished."""
    return run.final.get("mmAP")


@dataclass(frozen=True)
class Sample:
    """What the runs of one row have of something, one value for each seed."""

    key: RowKey
    values: tuple[float, ...]
    failed: bool
    """Whether a run of the row failed."""


@dataclass(frozen=True)
class Spread:
    """What chance does to a number: its standard deviation over seeds, pooled over rows."""

    deviation: float
    freedom: int
    """Degrees of freedom: the runs beyond the first of each row."""

    def reach(self, first: Sample, second: Sample, *, among: int) -> float:
        """How far chance carries the difference of two means.

        `among` such differences are together within their reaches in 95 of 100 cases (Student's t, Bonferroni).
        """
        error = self.deviation * math.sqrt(1 / len(first.values) + 1 / len(second.values))
        return float(stdtrit(self.freedom, 1 - (1 - CONFIDENCE) / 2 / among)) * error


def pooled(samples: Iterable[Sample]) -> Spread | None:
    """The spread of rows that are compared; None where none of them has two seeds.

    Rows with failed runs are left out: these end near zero whatever their seed, and say nothing of the others' chance.
    """
    squares, freedom = 0.0, 0
    for sample in samples:
        if len(sample.values) > 1 and not sample.failed:
            mean = fmean(sample.values)
            squares += sum((value - mean) ** 2 for value in sample.values)
            freedom += len(sample.values) - 1
    return Spread(math.sqrt(squares / freedom), freedom) if freedom else None


class Evidence:
    """The runs of one group of comparable ones, by row."""

    def __init__(self, group: Group) -> None:
        self.rows = by_row(group.runs)

    def ended(self, key: RowKey) -> list[RunRecord]:
        """The row's runs that have come to a result: finished or diverged."""
        return [run for run in self.rows.get(key, []) if run.state in ("finished", "diverged")]

    def failed(self, key: RowKey) -> list[RunRecord]:
        """Those that diverged, or collapsed: ended below COLLAPSED of the best run's mmAP."""
        return [
            run
            for run in self.ended(key)
            if run.state == "diverged" or (final_mmAP(run) or 0.0) < COLLAPSED * self._best_mmAP
        ]

    def sample(self, key: RowKey, measure: Measure = final_mmAP) -> Sample | None:
        """What the row's runs have of `measure`; None where no run has any."""
        values = self._values(key, measure)
        return Sample(key, tuple(values), bool(self.failed(key))) if values else None

    @cached_property
    def _best_mmAP(self) -> float:
        return max((value for key in self.rows for value in self._values(key, final_mmAP)), default=0.0)

    def _values(self, key: RowKey, measure: Measure) -> list[float]:
        return [value for run in self.rows.get(key, []) if (value := measure(run)) is not None]
