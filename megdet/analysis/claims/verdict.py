"""How a claim is judged: the same few rules for all.

The difference of two rows has a confidence interval: from the standard deviation over seeds of all rows that the claim
compares, and for all its comparisons together. A comparison bears the claim out where the whole interval lies on the
claim's side. It speaks against the claim where the whole interval lies on the other side, or does not reach the paper's
own difference. Else it is undecided, and says how many seeds would decide.

A row of which a run failed has no such interval: its mean is that of two kinds of runs, and how far they are apart is
not known from other rows. It is below any row without failed runs; of more than that it says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean

from megdet.analysis.cells import decimals, signed
from megdet.analysis.claims.evidence import Evidence, Measure, Sample, Spread, pooled
from megdet.analysis.rows import RowKey, row_name

MOST_SEEDS = 1000
"""More would decide nothing that anybody waits for."""
LEVEL = 0.5
"""mmAP: what the paper calls the same level differs by less (Table 3: 37.0 to 37.3; Table 2: 36.2 and 36.4)."""


class Mark(StrEnum):
    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    UNDECIDED = "undecided"
    """The runs are there, and chance hides what they say."""
    NOT_TESTABLE = "not testable here"


@dataclass(frozen=True)
class Finding:
    """What one piece of evidence says of a claim."""

    holds: bool | None
    """None: it says nothing either way."""
    why: str
    hidden: bool = False
    """Where it says nothing: by chance, so that more of the same would tell."""


@dataclass(frozen=True)
class Comparison:
    """A claim that one row has more of something than another, by more than a bar."""

    names: str
    measure: str
    """What is compared."""
    more: Sample
    less: Sample
    paper: float | None
    """The paper's own difference; None where it gives no number."""
    bar: float = 0.0
    digits: int = 1
    looks: int = 1
    """That share the 5 %, as of `Evidence`."""
    of_accuracy: bool = True
    """As of `Measure`."""

    @property
    def failed(self) -> list[Sample]:
        """Those of the two rows of which a run failed; where there is one, chance has no part in what is found."""
        return [sample for sample in (self.more, self.less) if sample.failed]

    def finding(self, spread: Spread | None, among: int) -> Finding:
        """What it says of a claim that rests on `among` comparisons of rows with this spread."""
        if self.failed:
            why = f"{self.told()}, runs of {' and of '.join(sample.name for sample in self.failed)} failed"
            return Finding(self.less.failed if len(self.failed) == 1 and self.of_accuracy else None, why)
        if spread is None:
            return Finding(None, f"{self.told()}, two seeds would say how far chance reaches", hidden=True)
        reach = spread.reach(self.more, self.less, among=among * self.looks)
        why = self.told(f" ± {reach:.{self.digits}f}")
        if self._difference - reach > self.bar:
            return Finding(True, why)
        if self._difference + reach < self._claimed:
            return Finding(False, why)
        seeds = self._seeds_that_decide(spread, among)
        return Finding(None, why + (f", about {seeds} seeds of each would decide" if seeds else ""), hidden=True)

    def told(self, interval: str = "") -> str:
        """The difference with its interval, beside the paper's."""
        signed_text = signed(decimals(self.digits))
        printed = "" if self.paper is None else f" (paper {signed_text([self.paper])})"
        return f"{self.names}: {signed_text([self._difference])}{interval}{printed}"

    @property
    def _difference(self) -> float:
        return fmean(self.more.values) - fmean(self.less.values)

    @property
    def _claimed(self) -> float:
        """The difference that is not there where even the whole interval lies below."""
        return self.bar if self.paper is None or self.bar < 0 else max(self.bar, self.paper)

    def _seeds_that_decide(self, spread: Spread, among: int) -> int | None:
        """Of each row, if difference and spread stay as they are; None: more than MOST_SEEDS."""
        margin = max(self._difference - self.bar, self._claimed - self._difference)
        for seeds in range(1 + max(len(self.more.values), len(self.less.values)), MOST_SEEDS + 1):
            if spread.with_seeds(seeds).reach_of(seeds, seeds, among=among * self.looks) < margin:
                return seeds
        return None


@dataclass(frozen=True)
class Verdict:
    mark: Mark
    why: str
    undecided: tuple[Comparison, ...] = ()
    """Where nothing else stands between the claim and a verdict: the comparisons that more seeds may decide."""


def verdict(evidence: Sequence[Finding | Comparison], *, missing: str = "") -> Verdict:
    """A claim is reproduced where all evidence bears it out, and not where any speaks against it."""
    compared = [each for each in evidence if isinstance(each, Comparison)]
    spreads = {each.measure: _spread(each.measure, compared) for each in compared}
    among = sum(not each.failed for each in compared)
    findings = [
        each.finding(spreads[each.measure], among) if isinstance(each, Comparison) else each for each in evidence
    ]
    why = "; ".join(dict.fromkeys(finding.why for finding in findings if finding.why)) or missing
    if any(finding.holds is False for finding in findings):
        return Verdict(Mark.NOT_REPRODUCED, why)
    if findings and all(finding.holds for finding in findings):
        return Verdict(Mark.REPRODUCED, why)
    undecided = [(each, finding) for each, finding in zip(evidence, findings, strict=True) if finding.holds is None]
    if undecided and all(finding.hidden for _, finding in undecided):
        return Verdict(Mark.UNDECIDED, why, tuple(each for each, _ in undecided if isinstance(each, Comparison)))
    return Verdict(Mark.NOT_TESTABLE, why)


def greater(
    evidence: Evidence,
    more: RowKey,
    less: RowKey,
    *,
    paper: float | None,
    measure: Measure | None = None,
    names: tuple[str, str] | None = None,
    digits: int = 1,
) -> Finding | Comparison:
    """Whether `more` has more than `less` of a measure (None: mmAP).

    `paper` is the paper's own difference, None where it gives no number.
    """
    measure = measure or evidence.mmAP
    first, second = names or (row_name(more), row_name(less))
    larger, smaller = evidence.sample(more, measure), evidence.sample(less, measure)
    if larger is None or smaller is None:
        return _not_run(evidence, more, less)
    return Comparison(
        f"{first} against {second}",
        measure.name,
        larger,
        smaller,
        paper,
        digits=digits,
        looks=evidence.looks,
        of_accuracy=measure.of_accuracy,
    )


def no_less(evidence: Evidence, key: RowKey, than: RowKey, *, paper: float) -> Finding | Comparison:
    """Whether `key` is within LEVEL of `than`, or above."""
    own, other = (evidence.sample(each, evidence.mmAP) for each in (key, than))
    if own is None or other is None:
        return _not_run(evidence, key, than)
    names = f"{row_name(key)} against {row_name(than)}"
    return Comparison(names, evidence.mmAP.name, own, other, paper, bar=-LEVEL, looks=evidence.looks)


def fails(evidence: Evidence, key: RowKey) -> Finding:
    """Whether every run of the row diverged or collapsed."""
    ended, failed = evidence.ended(key), evidence.failed(key)
    if ended.empty:
        return Finding(None, f"{row_name(key)} has not been run")
    return Finding(len(failed) == len(ended), f"{row_name(key)}: {len(failed)} of {len(ended)} runs failed")


def converges(evidence: Evidence, keys: Sequence[RowKey]) -> Finding:
    """Whether no run of the rows diverged or collapsed, and all rows have been run."""
    ended = {key: len(evidence.ended(key)) for key in keys}
    lost = {key: failed for key in keys if (failed := len(evidence.failed(key)))}
    if lost:
        named = (f"{row_name(key)} ({failed} of {ended[key]} runs)" for key, failed in lost.items())
        return Finding(False, "failed: " + "; ".join(named))
    missing = [key for key in keys if not ended[key]]
    why = f"none of {sum(ended.values())} runs failed"
    why += f", {len(missing)} of {len(keys)} rows not run" if missing else ""
    return Finding(None if missing else True, why)


def _spread(measure: str, compared: Sequence[Comparison]) -> Spread | None:
    rows = {sample for each in compared if each.measure == measure for sample in (each.more, each.less)}
    return pooled(rows)


def _not_run(evidence: Evidence, *keys: RowKey) -> Finding:
    missing = [key for key in keys if not (evidence.runs(key)["status"] == "finished").any()]
    return Finding(None, ", ".join(f"{row_name(key)} has no finished run" for key in missing))
