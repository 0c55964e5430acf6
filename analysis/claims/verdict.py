"""How a claim is judged: the same few rules for all, fixed before the runs are looked at.

A comparison of two rows bears a claim out where the difference goes its way by more than two standard errors. It
speaks against it where it goes the other way by as much, or where it is lost in chance although the paper's own
difference would not have been. Where chance would have hidden the paper's difference too, it says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from analysis.claims.evidence import Evidence, Gap, Measure, final_mmAP
from analysis.paper import RowKey, label_of

LEVEL = 0.5
"""mmAP: what the paper calls the same level differs by less (Table 3: 37.0 to 37.3; Table 2: 36.2 and 36.4)."""


class Mark(StrEnum):
    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    NOT_TESTABLE = "not testable here"


@dataclass(frozen=True)
class Finding:
    """What one piece of evidence says of a claim."""

    holds: bool | None
    """None: it says nothing either way."""
    why: str


@dataclass(frozen=True)
class Verdict:
    mark: Mark
    why: str


def verdict(findings: Sequence[Finding], *, missing: str = "") -> Verdict:
    """A claim is reproduced where all evidence bears it out, and not where any speaks against it."""
    why = "; ".join(dict.fromkeys(finding.why for finding in findings if finding.why)) or missing
    if any(finding.holds is False for finding in findings):
        return Verdict(Mark.NOT_REPRODUCED, why)
    if findings and all(finding.holds for finding in findings):
        return Verdict(Mark.REPRODUCED, why)
    return Verdict(Mark.NOT_TESTABLE, why)


def greater(
    evidence: Evidence,
    more: RowKey,
    less: RowKey,
    *,
    paper: float | None,
    measure: Measure = final_mmAP,
    names: tuple[str, str] | None = None,
) -> Finding:
    """Whether `more` has more than `less`; `paper` is the paper's own difference, None where it gives no number."""
    first, second = names or (row_name(more), row_name(less))
    gap = evidence.gap(more, less, measure)
    if gap is None:
        return _not_run(evidence, more, less)
    why = f"{first} against {second}: {gap}" + ("" if paper is None else f" (paper {paper:+.1f})")
    return Finding(_goes_up(gap, paper), why)


def no_less(evidence: Evidence, key: RowKey, than: RowKey, *, paper: float) -> Finding:
    """Whether `key` is within LEVEL of `than`, or above."""
    gap = evidence.gap(key, than)
    if gap is None:
        return _not_run(evidence, key, than)
    why = f"{row_name(key)} against {row_name(than)}: {gap} (paper {paper:+.1f})"
    if gap.reach is None:
        return Finding(None, why)
    if gap.difference - gap.reach > -LEVEL:
        return Finding(True, why)
    return Finding(False if gap.difference + gap.reach < -LEVEL else None, why)


def fails(evidence: Evidence, key: RowKey) -> Finding:
    """Whether every run of the row diverged or collapsed."""
    ended, failed = evidence.ended(key), evidence.failed(key)
    if not ended:
        return Finding(None, f"{row_name(key)} has not been run")
    return Finding(len(failed) == len(ended), f"{row_name(key)}: {len(failed)} of {len(ended)} runs failed")


def converges(evidence: Evidence, keys: Sequence[RowKey]) -> Finding:
    """Whether no run of the rows diverged or collapsed, and all rows have been run."""
    ended = [run for key in keys for run in evidence.ended(key)]
    lost = {key: failed for key in keys if (failed := evidence.failed(key))}
    if lost:
        named = (f"{row_name(key)} ({len(failed)} of {len(evidence.ended(key))} runs)" for key, failed in lost.items())
        return Finding(False, "failed: " + "; ".join(named))
    missing = [key for key in keys if not evidence.ended(key)]
    why = f"none of {len(ended)} runs failed" + (f", {len(missing)} of {len(keys)} rows not run" if missing else "")
    return Finding(None if missing else True, why)


def row_name(key: RowKey) -> str:
    """As `256 (long), BN 16`."""
    return f"{label_of(key)}, " + (f"BN {key[1]}" if key[1] else "frozen BN")


def _goes_up(gap: Gap, paper: float | None) -> bool | None:
    if gap.reach is None:
        return None
    if abs(gap.difference) > gap.reach:
        return gap.difference > 0
    return False if paper is not None and paper > gap.reach else None


def _not_run(evidence: Evidence, *keys: RowKey) -> Finding:
    missing = [key for key in keys if not any(run.state == "finished" for run in evidence.rows.get(key, []))]
    return Finding(None, ", ".join(f"{row_name(key)} has no finished run" for key in missing))
