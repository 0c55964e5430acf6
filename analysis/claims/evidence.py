"""What runs say about the rows of the paper's tables: means over seeds, and how far chance reaches."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from analysis.comparable import Group
from analysis.paper import RowKey, key_of
from analysis.runs import RunRecord

COLLAPSED = 0.1
"""Of the best run's mmAP: a detector that ends below has learned next to nothing, though its loss stayed finite."""

Measure = Callable[[RunRecord], float | None]
"""A number of a run; None where it has none."""


def final_mmAP(run: RunRecord) -> float | None:
    """COCO AP in percent after the last epoch; None unless the run has finished."""
    return run.final.get("mmAP")


@dataclass(frozen=True)
class Gap:
    """How much more one row has of something than another: the difference of their means over seeds."""

    difference: float
    reach: float | None
    """Two standard errors of the difference; None where no row has two seeds, so that nothing is known of chance."""

    def __str__(self) -> str:
        return f"{self.difference:+.1f}" + ("" if self.reach is None else f" ± {self.reach:.1f}")


class Evidence:
    """The runs of one group of comparable ones, by row."""

    def __init__(self, group: Group) -> None:
        self.rows: dict[RowKey, list[RunRecord]] = defaultdict(list)
        for run in group.runs:
            self.rows[key_of(run)].append(run)

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

    def studies(self, name: str) -> list[tuple[RunRecord, dict[str, Any]]]:
        """What a study left in the runs' files of that name."""
        runs = [run for key in sorted(self.rows) for run in self.rows[key]]
        return [(run, json.loads(path.read_text())) for run in runs for path in run.files(name)]

    def gap(self, more: RowKey, less: RowKey, measure: Measure = final_mmAP) -> Gap | None:
        """What `more` has beyond `less`; None where either has no value."""
        first, second = self._values(more, measure), self._values(less, measure)
        if not first or not second:
            return None
        spread = self.spread(measure)
        error = None if spread is None else spread * math.sqrt(1 / len(first) + 1 / len(second))
        return Gap(fmean(first) - fmean(second), None if error is None else 2 * error)

    def spread(self, measure: Measure = final_mmAP) -> float | None:
        """The standard deviation over seeds, pooled over all rows with several; None without such a row."""
        squares, freedom = 0.0, 0
        for key in self.rows:
            values = self._values(key, measure)
            if len(values) > 1:
                mean = fmean(values)
                squares += sum((value - mean) ** 2 for value in values)
                freedom += len(values) - 1
        return math.sqrt(squares / freedom) if freedom else None

    @cached_property
    def _best_mmAP(self) -> float:
        return max((value for key in self.rows for value in self._values(key, final_mmAP)), default=0.0)

    def _values(self, key: RowKey, measure: Measure) -> list[float]:
        return [value for run in self.rows.get(key, []) if (value := measure(run)) is not None]
