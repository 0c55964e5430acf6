"""Evidence on the paper's rows: means over seeds, and confidence intervals of differences."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import fmean

import pandas as pd
from scipy.special import stdtrit

from megdet.analysis.collapsed import have_failed
from megdet.analysis.comparable import Group
from megdet.analysis.rows import RowKey, by_row, row_name

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Measure:
    """A number of runs."""

    name: str
    values: pd.Series
    """By run; runs that have none may be left out."""
    of_accuracy: bool = True
    """Whether runs that failed have less of it."""


@dataclass(frozen=True)
class Sample:
    """One measure of one row: a value for each seed."""

    key: RowKey | str
    """The row; a text where it is none of the paper's form (`questions`)."""
    values: tuple[float, ...]
    failed: bool
    """Whether a run of the row failed."""
    name: str = ""
    """Of the row, for a reader."""


@dataclass(frozen=True)
class Spread:
    """The standard deviation of a number over seeds, pooled over rows."""

    deviation: float
    runs: tuple[int, ...]
    """Of each row."""

    @property
    def freedom(self) -> int:
        """Degrees of freedom: the runs beyond the first of each row."""
        return sum(self.runs) - len(self.runs)

    def with_seeds(self, seeds: int) -> Spread:
        """The same deviation, known from at least so many runs of each row."""
        return replace(self, runs=tuple(max(seeds, runs) for runs in self.runs))

    def reach(self, first: Sample, second: Sample, *, among: int) -> float:
        """Half-width of the 95 % confidence interval of the difference of two means.

        The 95 % are of `among` such differences together (Student's t, Bonferroni).
        """
        return self.reach_of(len(first.values), len(second.values), among=among)

    def reach_of(self, first: int, second: int, *, among: int) -> float:
        """The same of means of so many runs."""
        error = self.deviation * math.sqrt(1 / first + 1 / second)
        return float(stdtrit(self.freedom, 1 - (1 - CONFIDENCE) / 2 / among)) * error


def pooled(samples: Iterable[Sample]) -> Spread | None:
    """The spread of rows that are compared; None where none of them has two seeds.

    Rows with failed runs are left out: these end near zero whatever their seed, and would hide the others' spread.
    """
    counted = [sample for sample in samples if not sample.failed]
    squares = sum((value - fmean(sample.values)) ** 2 for sample in counted for value in sample.values)
    spread = Spread(0.0, tuple(len(sample.values) for sample in counted))
    return replace(spread, deviation=math.sqrt(squares / spread.freedom)) if spread.freedom else None


class Evidence:
    """The runs of one group of comparable ones, by row."""

    def __init__(self, group: Group, *, looks: int = 1) -> None:
        """`looks`: how often claims are judged, at the most, while seeds are added; the looks share the 5 %."""
        self.group, self.looks = group, looks
        self.rows = by_row(group.runs)
        self._failed = have_failed(group.runs)
        self.mmAP = Measure("mmAP", group.runs["mmAP"])
        """COCO AP in percent after the last epoch, of the runs that have finished."""

    def ended(self, key: RowKey) -> pd.DataFrame:
        """The row's runs that have come to a result: diverged, or finished with an mmAP."""
        runs = self.runs(key)
        return runs[(runs["status"] == "diverged") | ((runs["status"] == "finished") & runs["mmAP"].notna())]

    def failed(self, key: RowKey) -> pd.DataFrame:
        """Those that diverged or collapsed (`have_failed`)."""
        ended = self.ended(key)
        return ended[self._failed[ended.index]]

    def sample(self, key: RowKey, measure: Measure) -> Sample | None:
        """What the row's runs have of `measure`; None where no run has any."""
        values = measure.values.reindex(self.runs(key).index).dropna()
        return Sample(key, tuple(values), len(self.failed(key)) > 0, row_name(key)) if len(values) else None

    def runs(self, key: RowKey) -> pd.DataFrame:
        """The row's runs, by seed."""
        return self.rows.get(key, self.group.runs.iloc[:0])
