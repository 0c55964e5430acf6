"""The claims of the paper (arXiv:1711.07240) on batch size, BN size and schedule, each with its test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

from megdet.analysis.claims.evidence import CONFIDENCE, Evidence, Measure
from megdet.analysis.claims.speed_up import faster
from megdet.analysis.claims.verdict import (
    Comparison,
    Finding,
    Mark,
    Verdict,
    converges,
    fails,
    greater,
    no_less,
    verdict,
)
from megdet.analysis.paper import PaperRow, epoch_beside, paper_rows, ratio_table
from megdet.analysis.rows import BASE, RowKey, by_row, row_name
from megdet.analysis.setting_values import numbers_in
from megdet.analysis.studies import gradient_variances, with_runs

MARGIN = 0.25
"""About the 1 of Eq. 2-4: a ratio that is surely within it falls as 1/k."""
RATIO = "RoI"
"""The ratio of Table 1 that a batch can change; the RPN's is a matter of anchors and objects alone."""
SMALL: RowKey = (16, 16, "normal", 1.0)


@dataclass(frozen=True)
class Claim:
    """One statement of the paper."""

    where: str
    text: str
    judge: Callable[[Evidence], Verdict]


def _frozen(batch: int, scale: float = 1.0) -> RowKey:
    return batch, 0, "normal", scale


def _printed() -> dict[RowKey, PaperRow]:
    return {row.key: row for row in paper_rows("table2", "table3")}


def _paper_gap(more: RowKey, less: RowKey) -> float:
    rows = _printed()
    first, second = rows[more].mmAP, rows[less].mmAP
    assert first is not None and second is not None, "the paper has a number for both"
    return first - second


def _greater(evidence: Evidence, more: RowKey, less: RowKey) -> Finding | Comparison:
    return greater(evidence, more, less, paper=_paper_gap(more, less))


def _cgbn_rows() -> list[RowKey]:
    return [row.key for row in paper_rows("table3") if row.key[1]]


def _large_cgbn_rows() -> list[RowKey]:
    """Normal schedule, batch 16 and more, BN over 16 or 32 images: the rows that the paper calls one level."""
    return [key for key in _cgbn_rows() if key[0] >= 16 and key[1] in (16, 32) and key[2] == "normal"]


def _some_fail(evidence: Evidence, key: RowKey) -> Verdict:
    ended, failed = evidence.ended(key), evidence.failed(key)
    why = f"{row_name(key)}: {len(failed)} of {len(ended)} runs failed"
    if ended.empty:
        return Verdict(Mark.NOT_TESTABLE, f"{row_name(key)} has not been run")
    # That none of a few runs failed, or all of them, does not exclude that others would not.
    return Verdict(Mark.REPRODUCED if 0 < len(failed) < len(ended) else Mark.UNDECIDED, why)


def _few_images(evidence: Evidence) -> Iterator[Finding | Comparison]:
    for batch, bn_size in ((2, 2), (4, 4), (8, 8), (16, 2)):
        yield _greater(evidence, SMALL, (batch, bn_size, "normal", 1.0))


def _best_bn_size(evidence: Evidence) -> Iterator[Finding | Comparison]:
    yield _greater(evidence, (32, 32, "normal", 1.0), SMALL)
    yield _greater(evidence, (64, 32, "normal", 1.0), (64, 64, "normal", 1.0))


def _long_is_better(evidence: Evidence) -> Iterator[Finding | Comparison]:
    for key in _cgbn_rows():
        if key[2] == "long":
            yield _greater(evidence, key, (key[0], key[1], "normal", key[3]))


def _catches_up(evidence: Evidence) -> Iterator[Finding | Comparison]:
    large, small = (256, 16, "long", 1.0), (16, 16, "long", 1.0)
    names = ("16 (long) before the first drop", "256 (long)")
    yield greater(evidence, small, large, paper=None, measure=_early_mmAP(evidence), names=names)
    yield no_less(evidence, large, small, paper=_paper_gap(large, small))


def _early_mmAP(evidence: Evidence) -> Measure:
    """The mean over the epochs before the learning rate first drops, of the runs that were evaluated after each."""
    runs, epochs = evidence.group.runs, evidence.group.epochs
    drops = runs["schedule.milestones"].map(lambda text: min(numbers_in(text), default=None))
    until = drops.fillna(runs["schedule.epochs"])
    early = epochs[epochs["epoch"] <= epochs["run"].map(until)].groupby("run")["mmAP"]
    return Measure("early mmAP", early.mean()[early.count() == until.reindex(early.mean().index)])


def _more_balanced(evidence: Evidence) -> Iterator[Finding | Comparison]:
    paper = {row.key: row.percent for row in ratio_table().rows}
    small, large = sorted(paper)
    lasts = {last for key in (small, large) for last in evidence.runs(key)["schedule.epochs"]}
    for epoch, ratio in paper[large].items():
        own = sorted({beside for last in lasts if (beside := epoch_beside(epoch, int(last))) not in (None, epoch)})
        at = f"epoch {epoch}" + (f" (ours: {', '.join(map(str, own))})" if own else "")
        yield greater(
            evidence,
            large,
            small,
            paper=ratio - paper[small][epoch],
            measure=_ratio(evidence, ratio_table().measures[RATIO], epoch),
            names=(f"{RATIO} ratio at {at} of batch {large[0]}", str(small[0])),
            digits=2,
        )


def _ratio(evidence: Evidence, number: str, epoch: int) -> Measure:
    epochs = evidence.group.epochs
    own = evidence.group.runs["schedule.epochs"].map(lambda last: epoch_beside(epoch, int(last)))
    here = epochs[epochs["epoch"] == epochs["run"].map(own)].set_index("run")
    return Measure(f"{number} at {epoch}", here.reindex(columns=[number])[number], of_accuracy=False)


def _falls_as_1_over_k(evidence: Evidence) -> Iterator[Finding]:
    """At the largest k of each run that was studied: k x Var(mean of k gradients) / Var(gradient) should be 1."""
    studied = gradient_variances(evidence.group.frames)
    if studied.empty:
        return
    whole = studied[(studied["early"] == 0) & (studied["module"] == "all")]
    largest = with_runs(whole.loc[whole.groupby("run")["k"].idxmax()], evidence.group.runs)
    for key, runs in by_row(largest).items():
        for seed, k, ratio, error in zip(*(runs[name] for name in ("seed", "k", "ratio", "error")), strict=True):
            # The errors are of hundreds of gradients, so a normal distribution's quantile; over all studies together.
            reach = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / 2 / len(largest)) * error
            why = f"{row_name(key)}, seed {seed}: {ratio:.2f} ± {reach:.2f} at k = {k} (paper 1)"
            off = abs(ratio - 1)
            yield Finding(False if off > reach else True if off + reach <= MARGIN else None, why, hidden=True)


def _not_here(why: str) -> Callable[[Evidence], Verdict]:
    return lambda evidence: Verdict(Mark.NOT_TESTABLE, why)


CLAIMS = (
    Claim(
        "3.2, Eq. 2-4",
        "The variance of the gradient falls as 1/k",
        lambda e: verdict(
            list(_falls_as_1_over_k(e)), missing="no run has been studied by megdet.studies.gradient_variance"
        ),
    ),
    Claim(
        "4.1, Table 2",
        "Without BN, batch 32 loses no accuracy against batch 16",
        lambda e: verdict([no_less(e, _frozen(32), BASE, paper=_paper_gap(_frozen(32), BASE))]),
    ),
    Claim("4.1", "Without BN, batch 32 sometimes fails", lambda e: _some_fail(e, _frozen(32))),
    Claim("4.1, Table 2", "Without BN, batch 64 fails, even with warm-up", lambda e: verdict([fails(e, _frozen(64))])),
    Claim(
        "4.1, Table 2",
        "Without BN, half the learning rate lets batch 64 converge, with a loss of accuracy",
        lambda e: verdict([converges(e, [_frozen(64, 0.5)]), _greater(e, _frozen(32), _frozen(64, 0.5))]),
    ),
    Claim(
        "4.1, Table 2",
        "Without BN, batch 128 fails at half the learning rate too",
        lambda e: verdict([fails(e, _frozen(128, 0.5))]),
    ),
    Claim(
        "4.2, Table 3", "With CGBN and warm-up all trainings converge", lambda e: verdict([converges(e, _cgbn_rows())])
    ),
    Claim(
        "4.2, Table 3",
        "With CGBN, batches of 16 to 256 are better than the baseline with frozen BN",
        lambda e: verdict([_greater(e, key, BASE) for key in _large_cgbn_rows()]),
    ),
    Claim(
        "4.2, Table 3",
        "With CGBN, accuracy stays at one level as the batch grows to 256",
        lambda e: verdict(
            [no_less(e, key, SMALL, paper=_paper_gap(key, SMALL)) for key in _large_cgbn_rows() if key != SMALL]
        ),
    ),
    Claim(
        "4.2, Table 3",
        "Statistics of 2, 4 or 8 images are too inaccurate: worse than of 16",
        lambda e: verdict(list(_few_images(e))),
    ),
    Claim(
        "4.2, Table 3",
        "The best BN size is 32: better than 16, and than 64",
        lambda e: verdict(list(_best_bn_size(e))),
    ),
    Claim("4.2, Table 3", "The long schedule is slightly better", lambda e: verdict(list(_long_is_better(e)))),
    Claim(
        "4.2, Figure 4",
        "256 (long) is worse in the early epochs and catches up with 16 (long)",
        lambda e: verdict(list(_catches_up(e))),
    ),
    Claim(
        "1, Table 1",
        "A larger batch makes positive and negative samples more balanced",
        lambda e: verdict(list(_more_balanced(e))),
    ),
    Claim("4.2, Table 3", "256 images a batch on 128 GPUs train 8 times faster than 16 on 8", faster),
    Claim(
        "Appendix, Table 4",
        "52.5 mmAP on COCO's test-dev",
        _not_here("an ensemble of four larger detectors with techniques that are not part of this project"),
    ),
)
