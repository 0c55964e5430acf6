"""What a sweep is to decide whose seeds are added as they are needed, and which of its rows more seeds are for.

A sweep of the paper's rows decides the claims that compare them. Any other one decides whether each row has more or
less of its measure than the first. Both are judged as claims always are (`verdict`).

Whoever looks again and again, and stops once a difference is sure, finds one that is not there more often than in 5 %
of all cases. So the looks share the 5 % (Bonferroni), whatever each of them finds and whichever rows get more seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from megdet.analysis.claims.evidence import Evidence, Sample, pooled
from megdet.analysis.claims.paper_claims import CLAIMS
from megdet.analysis.claims.verdict import Comparison, Finding, Mark
from megdet.analysis.collapsed import have_failed
from megdet.analysis.comparable import Group, comparable_groups
from megdet.analysis.rows import RowKey, key_of
from megdet.analysis.run_frames import RunFrames

FAILED = "diverged, or below a tenth of the best mmAP"
"""What counts as failed (`have_failed`)."""


@dataclass(frozen=True)
class Question:
    """Something that a sweep is to decide."""

    text: str
    answer: str
    """Empty while nothing is sure."""
    why: str
    """The numbers; of an open question those that more seeds are for."""
    rows: tuple[str, ...] = ()
    """The rows that more seeds are for, by their experiment ids; none once it is answered, or where none would tell."""


def questions_of(
    frames: RunFrames, rows: Mapping[str, str], *, looks: int, measure: str, of_accuracy: bool = True
) -> list[Question]:
    """The questions that the runs of a sweep raise, answered or not.

    `rows`: names by experiment id, in their order. `measure`: what rows are compared by where no claim compares them,
    an epoch's number; `of_accuracy`: as of `Measure`. `looks`: how often they are asked, at the most, while seeds are
    added.
    """
    by_key: dict[RowKey, str] = {key_of(run): run["experiment_id"] for _, run in frames.runs.iterrows()}
    groups = comparable_groups(frames)
    is_like_the_paper = len(groups) == 1 and len(by_key) == frames.runs["experiment_id"].nunique()
    found = _of_claims(groups[0], by_key, looks) if is_like_the_paper else []
    return found or _against_the_first(frames, rows, looks, measure, of_accuracy)


def _of_claims(group: Group, experiments: Mapping[RowKey, str], looks: int) -> list[Question]:
    """The claims of the paper that differences of these rows decide."""
    evidence = Evidence(group, looks=looks)
    found = []
    for claim in CLAIMS:
        judged = claim.judge(evidence)
        if judged.mark in (Mark.REPRODUCED, Mark.NOT_REPRODUCED):
            found.append(Question(claim.text, judged.mark, judged.why))
        elif judged.undecided:
            keys = [sample.key for each in judged.undecided for sample in (each.more, each.less)]
            rows = tuple(dict.fromkeys(experiments[key] for key in keys if not isinstance(key, str)))
            found.append(Question(claim.text, "", _why(judged.undecided), rows))
    return found


def _why(comparisons: tuple[Comparison, ...]) -> str:
    return "; ".join(dict.fromkeys(each.names for each in comparisons))


def _against_the_first(
    frames: RunFrames, rows: Mapping[str, str], looks: int, measure: str, of_accuracy: bool
) -> list[Question]:
    """Of each row whether it has more or less of `measure` than the first one."""
    runs = frames.runs
    values = runs[measure] if measure in runs else runs["mmAP"]
    failed = set(runs["experiment_id"][have_failed(runs)])
    found = {row: tuple(values[runs["experiment_id"] == row].dropna()) for row in rows}
    samples = [Sample(row, own, row in failed, f"{rows[row]} ({FAILED})") for row, own in found.items() if own]
    first = next(iter(rows))
    questions = []
    for sample, finding in findings_against(first, samples, looks=looks, of_accuracy=of_accuracy):
        row = str(sample.key)
        answer = "" if finding.holds is None else "more" if finding.holds else "less"
        text = f"{values.name} of {rows[row]} against {rows[first]}"
        questions.append(Question(text, answer, finding.why, (row, first) if finding.hidden else ()))
    return questions


def findings_against(
    first: str, samples: Sequence[Sample], *, looks: int, of_accuracy: bool = True
) -> list[tuple[Sample, Finding]]:
    """Of each sample but the one of row `first` whether it has more than that one (holds), less, or nothing is sure."""
    base = next((sample for sample in samples if sample.key == first), None)
    if base is None:
        return []
    compared = [
        Comparison("difference", "", each, base, None, digits=2, looks=looks, of_accuracy=of_accuracy)
        for each in samples
        if each is not base
    ]
    spread, among = pooled(samples), sum(not each.failed for each in compared)
    return [(each.more, each.finding(spread, among)) for each in compared]
