"""The cells of a table, and how their numbers are written."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import pandas as pd

Format = Callable[[Sequence[float]], str]
"""One number as text; of several seeds: mean ± sample standard deviation (how many)."""


@dataclass(frozen=True)
class Seeds:
    """A number averaged over the seeds of a row, or why there is none."""

    values: tuple[float, ...]
    """Of each run that has one."""
    diverged: int = 0
    """How many runs have none because training diverged."""
    otherwise: str = ""
    """Where no run has one and none diverged: `running`, or why not."""

    @property
    def mean(self) -> float | None:
        return fmean(self.values) if self.values else None

    def text(self, form: Format) -> str:
        if self.values:
            ended = len(self.values) + self.diverged
            return form(self.values) + (f"; {self.diverged} of {ended} failed" if self.diverged else "")
        if self.diverged:
            return "failed" if self.diverged == 1 else f"failed ({self.diverged} of {self.diverged})"
        return self.otherwise


Cell = Seeds | float | str | None
"""None, or not a number: nothing there (not run, or not given)."""


def seeds_of(runs: pd.DataFrame, values: Iterable[float], *, name: str = "mmAP") -> Seeds:
    """The cell of a row with these runs, of which some have `values`, else what their status says."""
    there = set(runs["status"])
    otherwise = "running" if "running" in there else f"no {name}" if "finished" in there else ""
    return Seeds(tuple(values), int((runs["status"] == "diverged").sum()), otherwise)


def decimals(digits: int) -> Format:
    """A format with that many digits after the point."""
    return lambda values: _mean_text(values, digits)


def signed(form: Format) -> Format:
    """A format for differences of such numbers: with a sign, unless it rounds to zero."""

    def text(values: Sequence[float]) -> str:
        shown = form([abs(values[0])])
        return shown if not float(shown) else ("-" if values[0] < 0 else "+") + shown

    return text


def hours(values: Sequence[float]) -> str:
    """One decimal from an hour on, as in the paper; three digits below."""
    mean = fmean(values)
    if mean >= 1:
        return _mean_text(values, 1)
    return f"{mean:.3g}" if len(values) == 1 or mean == 0 else _mean_text(values, _digits_for_three(mean))


def three_digits(values: Sequence[float]) -> str:
    """Three significant digits, for a number of unknown size."""
    mean = fmean(values)
    return _mean_text(values, _digits_for_three(mean) if mean else 0)


def as_is(values: Sequence[float]) -> str:
    """A count or a setting, unchanged."""
    return f"{values[0]:g}" if isinstance(values[0], float) else str(values[0])


def notes_on(runs: pd.DataFrame, *, shown: bool) -> tuple[str, ...]:
    """The status of runs without a value, which the row's cells do not show. `shown`: some runs have one."""
    if runs.empty:
        return ()
    shown = shown or bool(runs["status"].isin(["finished", "diverged"]).any())
    running = (runs["status"] == "running").any()
    in_cell = ("new", "finished", "diverged", *(() if shown else ("running",)))
    others = runs[~runs["status"].isin(in_cell)]
    counts = Counter(
        _status_text(status, reason) for status, reason in zip(others["status"], others["reason"], strict=True)
    )
    if not counts:
        return ()
    if shown or running:
        return ("further seeds " + ", ".join(f"{text}: {count}" for text, count in counts.items()),)
    return (", ".join(text if count == 1 else f"{text}: {count}" for text, count in counts.items()),)


def _status_text(status: str, reason: str) -> str:
    # An error says nothing about training: it must not read as the paper's `failed`.
    word = "error" if status == "failed" else status
    return f"{word} ({reason})" if reason and status != "running" else word


def _mean_text(values: Sequence[float], digits: int) -> str:
    spread = f" ± {stdev(values):.{digits}f} ({len(values)})" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{spread}"


def _digits_for_three(mean: float) -> int:
    return max(0, 2 - math.floor(math.log10(abs(mean))))
