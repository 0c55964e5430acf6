"""How the paper's claims are judged, by numbers small enough to work out by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest

from megdet.analysis.claims.evidence import Evidence, Sample, pooled
from megdet.analysis.claims.paper_claims import CLAIMS
from megdet.analysis.claims.table import make
from megdet.analysis.claims.verdict import Comparison, Finding, Mark, converges, fails, greater, no_less, verdict
from megdet.analysis.comparable import Group
from megdet.analysis.frames import frames_of
from megdet.analysis.paper import paper_rows
from megdet.analysis.records import Record, Records
from megdet.analysis.rows import RowKey, row_name

A: RowKey = (16, 0, "normal", 1.0)
B: RowKey = (16, 16, "normal", 1.0)


@dataclass(frozen=True)
class Run:
    """A run as it is read, without a folder."""

    record: Record
    epochs: Sequence[dict[str, float]]


def run_of(
    key: RowKey,
    mmAP: float | None,
    *,
    seed: int = 0,
    status: str = "finished",
    gpus: int = 1,
    device: str = "",
    epochs: Sequence[dict[str, float]] = (),
    last: int | None = None,
) -> Run:
    batch, bn_size, schedule, scale = key
    settings = {
        "batch": str(batch), "bn_size": str(bn_size), "schedule": schedule, "lr.scale": str(scale),
        "model": "tiny", "data": "shapes",
        "schedule.epochs": str(last or (18 if schedule == "long" else 11)),
        "schedule.milestones": "[11, 14, 17]" if schedule == "long" else "[8, 10]",
    }  # fmt: skip
    facts = {
        "run_id": f"{key}-{seed}", "experiment_id": str(key), "experiment": "small", "status": status, "reason": "",
        "seed": seed, "gpus": gpus, "commits": ("c",), "dirty": False, "train_s": 3600.0 / gpus, "data_sha256": "",
        "weights_sha256": "", "device": device, "sweeps": (), "folder": "", "mlflow_run_id": "",
    }  # fmt: skip
    return Run(Record(facts, settings, {} if mmAP is None else {"mmAP": mmAP}), epochs)


def group_of(runs: Sequence[Run], *, folder: Path | None = None) -> Group:
    """The runs as a group; all of them have the files in `folder`."""
    lines = [{"run": place, **line} for place, run in enumerate(runs) for line in run.epochs]
    records = Records(
        [run.record for run in runs],
        pd.DataFrame(lines),
        pd.DataFrame(),
        lambda run, pattern: sorted(folder.glob(pattern)) if folder else [],
    )
    return Group("all", frames_of(records))


def evidence_of(values: dict[RowKey, Sequence[float]]) -> Evidence:
    runs = [run_of(key, mmAP, seed=seed) for key, each in values.items() for seed, mmAP in enumerate(each)]
    return Evidence(group_of(runs))


def test_chance_reaches_by_students_t_of_the_pooled_deviation() -> None:
    first, second = Sample(A, (30.0, 32.0), failed=False), Sample(B, (33.0, 36.0, 36.0), failed=False)
    # Squares about the means: 1 + 1, and 4 + 1 + 1; degrees of freedom: 1 + 2.
    spread = pooled([first, second])
    assert spread is not None and spread.freedom == 3
    assert spread.deviation == pytest.approx(math.sqrt(8 / 3))
    error = math.sqrt(8 / 3 * (1 / 2 + 1 / 3))
    # Any printed table of Student's t, three degrees of freedom: 3.182 at 2.5 % and 5.841 at 0.5 % in each tail.
    assert spread.reach(first, second, among=1) == pytest.approx(3.182 * error, rel=1e-3)
    assert spread.reach(first, second, among=5) == pytest.approx(5.841 * error, rel=1e-3), "they share the 5 %"


def test_one_pair_of_seeds_that_agree_decides_nothing() -> None:
    # One degree of freedom: t is 12.706, so a deviation of 0.14 reaches 12.706 x 0.14 x sqrt 1.5 = 2.2.
    evidence = evidence_of({A: [30.0, 30.2], B: [32.0]})
    assert judged(greater(evidence, B, A, paper=0.8)) is Mark.UNDECIDED


def test_failed_runs_say_nothing_of_the_chance_that_others_have() -> None:
    evidence = evidence_of({A: [50.0, 54.0], B: [0.1, 0.1]})
    samples = [evidence.sample(key, evidence.mmAP) for key in (A, B)]
    assert [sample.failed for sample in samples if sample] == [False, True]
    spread = pooled(sample for sample in samples if sample)
    assert spread is not None and spread.freedom == 1
    assert spread.deviation == pytest.approx(math.sqrt(8))


def test_a_row_with_failed_runs_is_below_any_without_and_has_no_interval_of_other_rows() -> None:
    """Others' spread is not its own: of these runs of B one ends at 2, one at 12, and A's differ by 0.2."""
    other: RowKey = (32, 32, "normal", 1.0)
    evidence = evidence_of({A: [40.0, 40.2], B: [2.0, 12.0], other: [1.0, 3.0]})
    spread = pooled([Sample(A, (40.0, 40.2), failed=False)])
    ratio = replace(evidence.mmAP, of_accuracy=False)
    for compared, holds in (
        (greater(evidence, A, B, paper=0.8), True),
        (greater(evidence, B, A, paper=0.8), False),
        (no_less(evidence, B, A, paper=0.0), False),
        (no_less(evidence, A, B, paper=0.0), True),
        (greater(evidence, B, other, paper=0.8), None),
        (greater(evidence, A, B, paper=0.8, measure=ratio), None),
    ):
        assert isinstance(compared, Comparison)
        finding = compared.finding(spread, among=1)
        assert finding.holds is holds and not finding.hidden, finding.why
        assert "±" not in finding.why
    both = greater(evidence, B, other, paper=0.8)
    assert isinstance(both, Comparison)
    why = both.finding(spread, among=1).why
    assert why.endswith("+5.0 (paper +0.8), runs of 16, BN 16 and of 32, BN 32 failed")
    # Samples with failed runs in nothing but a ratio: no verdict on what the ratio says of training.
    assert judged(greater(evidence, A, B, paper=0.8, measure=ratio)) is Mark.NOT_TESTABLE


def test_rows_that_a_claim_does_not_compare_say_nothing_of_its_chance() -> None:
    # 40 and 48 of another row would have hidden +8: with them the deviation is 4.8 instead of 1.4.
    rows: dict[RowKey, Sequence[float]] = {A: [30.0, 32.0], B: [38.0, 40.0], (64, 16, "normal", 1.0): [40.0, 48.0]}
    assert judged(greater(evidence_of(rows), B, A, paper=0.8)) is Mark.REPRODUCED


def judged(*evidence: Finding | Comparison) -> Mark:
    return verdict(evidence).mark


@pytest.mark.parametrize(
    ("first", "second", "paper", "mark"),
    [
        ([38.0, 40.0], [30.0, 32.0], 0.8, Mark.REPRODUCED),  # +8 is more than 4.3 sqrt 2
        ([30.0, 32.0], [38.0, 40.0], 0.8, Mark.NOT_REPRODUCED),
        ([30.0, 32.0], [38.0, 40.0], None, Mark.NOT_REPRODUCED),
        ([31.0, 33.0], [30.0, 32.0], 0.8, Mark.UNDECIDED),  # chance would have hidden the paper's +0.8 too
        ([31.0, 33.0], [30.0, 32.0], 6.5, Mark.UNDECIDED),  # +1 reaches up to +7.1, and so to the paper's
        ([31.0, 33.0], [30.0, 32.0], 7.5, Mark.NOT_REPRODUCED),  # but no further
        ([34.0], [30.0], 0.8, Mark.UNDECIDED),  # nothing is known of chance
    ],
    ids=["clearly_more", "clearly_less", "less_without_a_number", "hidden", "agrees", "not_there", "one_seed"],
)
def test_a_difference_counts_where_chance_does_not_reach(
    first: list[float], second: list[float], paper: float | None, mark: Mark
) -> None:
    # The deviation is sqrt 2 on two degrees of freedom (t 4.303), the difference's error sqrt 2 as well.
    assert judged(greater(evidence_of({B: first, A: second}), B, A, paper=paper)) is mark


@pytest.mark.parametrize(
    ("value", "mark"),
    [(31.2, Mark.REPRODUCED), (30.6, Mark.UNDECIDED), (29.8, Mark.NOT_REPRODUCED)],
    ids=["level", "hidden_by_chance", "lower"],
)
def test_one_level_means_no_more_than_half_a_point_below(value: float, mark: Mark) -> None:
    # The deviation is 0.1 sqrt 2, so chance reaches 4.303 x 0.1 sqrt 2 = 0.61 about a limit of 31 - 0.5.
    evidence = evidence_of({A: [30.9, 31.1], B: [value - 0.1, value + 0.1]})
    assert judged(no_less(evidence, B, A, paper=0.2)) is mark


def test_an_undecided_difference_says_how_many_seeds_would_decide() -> None:
    # Two seeds each: the deviation is sqrt 2. With n of each there are 2 (n - 1) degrees of freedom, and of +1 the sign
    # is sure once t sqrt 2 sqrt(2 / n) < 1: n = 17 (t 2.037, 4 t^2 = 16.6) and not 16 (t 2.042, 16.7).
    evidence = evidence_of({A: [30.0, 32.0], B: [31.0, 33.0]})
    found = verdict([greater(evidence, B, A, paper=None)])
    assert (found.mark, found.why) == (
        Mark.UNDECIDED,
        f"{names(B, A)}: +1.0 ± 6.1, about 17 seeds of each would decide",
    )
    # That it does not reach the paper's +3 is sure sooner, once the reach is less than 2: n > t^2, which is 4.96 with 6
    # seeds and 5.3 with 5.
    assert "about 6 seeds" in verdict([greater(evidence, B, A, paper=3.0)]).why
    # Two that are equal are told apart by no number of them.
    assert "seeds of each" not in verdict([greater(evidence, A, A, paper=None)]).why


def names(more: RowKey, less: RowKey) -> str:
    return f"{row_name(more)} against {row_name(less)}"


def test_without_a_second_seed_a_claim_is_undecided_and_says_that_one_is_missing() -> None:
    found = verdict([greater(evidence_of({A: [30.0], B: [34.0]}), B, A, paper=0.8)])
    assert found.mark is Mark.UNDECIDED and "two seeds would say how far chance reaches" in found.why


def test_a_row_that_was_not_run_says_nothing() -> None:
    finding = greater(evidence_of({A: [30.0, 31.0]}), B, A, paper=0.8)
    assert isinstance(finding, Finding) and finding.holds is None and "16, BN 16 has no finished run" in finding.why


def test_divergence_is_judged_over_all_seeds() -> None:
    runs = [run_of(A, None, status="diverged"), run_of(A, None, seed=1, status="diverged"), run_of(B, 30.0)]
    evidence = Evidence(group_of(runs))
    assert fails(evidence, A).holds is True and fails(evidence, B).holds is False
    assert converges(evidence, [A, B]).holds is False and converges(evidence, [B]).holds is True
    partly = Evidence(group_of([*runs, run_of(A, 20.0, seed=2)]))
    assert fails(partly, A).holds is False
    assert converges(partly, [B, (32, 32, "normal", 1.0)]).holds is None, "a row is missing"


def test_a_run_that_learned_next_to_nothing_has_failed_though_its_loss_stayed_finite() -> None:
    evidence = evidence_of({A: [50.0], B: [4.9], (32, 32, "normal", 1.0): [5.1]})
    assert fails(evidence, B).holds is True and fails(evidence, (32, 32, "normal", 1.0)).holds is False
    assert converges(evidence, [A, B]).why == "failed: 16, BN 16 (1 of 1 runs)"


def test_all_evidence_must_hold_and_any_against_it_decides() -> None:
    evidence = evidence_of({A: [30.0, 32.0], B: [44.0, 46.0]})
    good, bad = greater(evidence, B, A, paper=1.0), greater(evidence, A, B, paper=1.0)
    nothing = greater(evidence, B, (2, 2, "normal", 1.0), paper=1.0)
    assert verdict([good]).mark is Mark.REPRODUCED
    assert verdict([good, nothing]).mark is Mark.NOT_TESTABLE
    assert verdict([good, nothing, bad]).mark is Mark.NOT_REPRODUCED
    assert verdict([]).mark is Mark.NOT_TESTABLE


def test_many_comparisons_of_a_claim_make_each_more_careful() -> None:
    # +6.2 is just beyond one comparison's 4.303 sqrt 2 = 6.1, not beyond that of two (6.205 sqrt 2 = 8.8).
    evidence = evidence_of({A: [30.0, 32.0], B: [36.2, 38.2]})
    one = greater(evidence, B, A, paper=1.0)
    assert verdict([one]).mark is Mark.REPRODUCED and verdict([one, one]).mark is Mark.UNDECIDED


def verdicts(group: Group) -> dict[str, str]:
    evidence = Evidence(group)
    return {claim.text: claim.judge(evidence).mark.value for claim in CLAIMS}


def test_the_papers_own_numbers_bear_out_the_papers_claims() -> None:
    """On its own GPUs, with a deviation over seeds of 0.014: what its tables have no numbers for is not testable."""
    printed = {row.key: row for row in paper_rows("table2", "table3")}
    runs = []
    for key, row in printed.items():
        for seed, off in enumerate((-0.01, 0.01)):
            status = "diverged" if row.mmAP is None else "finished"
            curve = [{"epoch": epoch, "mmAP": 20.0 if key[0] == 256 else 25.0} for epoch in range(1, 12)]
            mmAP = None if row.mmAP is None else row.mmAP + off
            run = run_of(key, mmAP, seed=seed, status=status, gpus=row.gpus or 1, epochs=curve)
            runs.append(run)
    found = verdicts(group_of(runs))
    open_ones = {text for text, mark in found.items() if mark == "not testable here"}
    assert {text for text, mark in found.items() if mark == "not reproduced"} == set()
    # Neither of two seeds did.
    assert {text for text, mark in found.items() if mark == "undecided"} == {"Without BN, batch 32 sometimes fails"}
    assert open_ones == {
        "A larger batch makes positive and negative samples more balanced",  # no ratios
        "The variance of the gradient falls as 1/k",  # not studied
        "52.5 mmAP on COCO's test-dev",
    }


SMALL, LARGE = (16, 0, "normal", 1.0), (256, 16, "normal", 1.0)


@pytest.mark.parametrize(
    ("gpus", "mark"),
    [((8, 128), "reproduced"), ((8, 32), "not testable here"), ((8, 64), "not testable here")],
    ids=["the_papers", "fewer", "half"],
)
def test_a_speed_up_is_judged_on_the_papers_gpus_alone(gpus: tuple[int, int], mark: str) -> None:
    # A fabricated run of one GPU takes an hour, one of n the n-th part of it.
    runs = [run_of(key, 30.0, gpus=number) for key, number in zip((SMALL, LARGE), gpus, strict=True)]
    found = verdicts(group_of(runs))
    assert found["256 images a batch on 128 GPUs train 8 times faster than 16 on 8"] == mark


def test_processes_on_a_cpu_are_none_of_the_papers_gpus() -> None:
    claim = next(claim for claim in CLAIMS if "8 times faster" in claim.text)
    runs = [run_of(key, 30.0, gpus=gpus, device="CPU (AMD)") for key, gpus in ((SMALL, 8), (LARGE, 128))]
    judged = claim.judge(Evidence(group_of(runs)))
    assert judged.mark == "not testable here" and "these runs had 8 CPU processes, 128 CPU processes;" in judged.why


def test_without_the_papers_gpus_the_speed_up_is_told_by_the_cost_model_and_by_what_more_ranks_gave_here() -> None:
    claim = next(claim for claim in CLAIMS if "8 times faster" in claim.text)
    runs = [run_of(LARGE, 30.0, seed=gpus, gpus=gpus) for gpus in (1, 2, 4)]
    why = claim.judge(Evidence(group_of(runs))).why
    assert why.startswith(
        "needs 8 and 128 GPUs; these runs had 1 GPU, 2 GPUs, 4 GPUs; the cost model, fitted to the other 18 times"
    )
    assert "(paper 33.2 and 4.1)" in why
    assert "256, BN 16 was 2.00 times as fast on 2 ranks as on 1 rank and 4.00 times as fast on 4 ranks" in why


def test_the_early_epochs_count_of_runs_that_were_evaluated_after_each_of_them() -> None:
    claim = next(claim for claim in CLAIMS if "catches up" in claim.text)
    runs = []
    for key, mmAP in (((16, 16, "long", 1.0), 30.0), ((256, 16, "long", 1.0), 20.0)):
        for seed in range(3):
            # The long schedule drops first after 11 epochs; the third seed lacks the sixth, and is far off.
            epochs = [
                {"epoch": epoch, "mmAP": mmAP + seed / 10 if seed < 2 else 99.0}
                for epoch in range(1, 19)
                if seed < 2 or epoch != 6
            ]
            runs.append(run_of(key, 37.0, seed=seed, epochs=epochs))
    why = claim.judge(Evidence(group_of(runs))).why
    assert "16 (long) before the first drop against 256 (long): +10.0 " in why


def test_without_runs_in_the_rows_nothing_is_testable() -> None:
    marks = set(verdicts(group_of([run_of((12, 4, "normal", 1.0), 30.0)])).values())
    assert marks == {"not testable here"}


def test_the_table_says_how_many_rows_have_several_seeds() -> None:
    table = make(group_of([run_of(A, 30.0), run_of(B, 30.0), run_of(B, 32.0, seed=1)]))
    assert table is not None and list(table.frame["Claim"]) == [claim.text for claim in CLAIMS]
    assert table.about == "Rows of runs that have ended: 2; with several seeds: 1."


def test_ratios_are_compared_at_epochs_that_were_trained() -> None:
    """A schedule of 3 epochs has no epoch 6, nor one beside the paper's 12."""
    claim = next(claim for claim in CLAIMS if "more balanced" in claim.text)
    for last, epochs in ((3, ["epoch 1"]), (11, ["epoch 1", "epoch 6", "epoch 12 (ours: 11)"])):
        lines = [{"epoch": e, "rpn_ratio_percent": 4.0, "roi_ratio_percent": 20.0} for e in range(1, last + 1)]
        asked = [((batch, 16, "normal", 1.0), seed) for batch in (16, 256) for seed in (0, 1)]
        runs = [run_of(key, 30.0, seed=seed, epochs=lines, last=last) for key, seed in asked]
        why = claim.judge(Evidence(group_of(runs))).why
        assert [part for part in ("epoch 1", "epoch 6", "epoch 12 (ours: 11)") if f"{part} of batch" in why] == epochs


@pytest.mark.parametrize(
    ("ratio", "error", "mark"),
    # 1.96 errors about the ratio: [0.95, 1.15] lies within 1 ± 0.25, [0.8, 1.4] does not, [0.5, 0.9] is below 1.
    [(1.05, 0.05, "reproduced"), (0.7, 0.1, "not reproduced"), (1.1, 0.15, "undecided")],
    ids=["about_one", "below_one", "too_uncertain"],
)
def test_the_gradients_variance_is_judged_at_the_largest_k(
    ratio: float, error: float, mark: str, tmp_path: Path
) -> None:
    by_k = {
        "1": {"ratio": 1.0, "error": 0.0},
        "2": {"ratio": 9.0, "error": 0.1},
        "16": {"ratio": ratio, "error": error},
    }
    (tmp_path / "gradient_variance.json").write_text(json.dumps({"modules": {"all": by_k}}))
    found = verdicts(group_of([run_of(A, 30.0)], folder=tmp_path))
    assert found["The variance of the gradient falls as 1/k"] == mark


def test_more_studies_of_the_same_ratio_never_make_it_reproduced(tmp_path: Path) -> None:
    by_k = {"1": {"ratio": 1.0, "error": 0.0}, "16": {"ratio": 1.6, "error": 0.24}}
    (tmp_path / "gradient_variance.json").write_text(json.dumps({"modules": {"all": by_k}}))
    marks = [
        verdicts(group_of([run_of(A, 30.0, seed=seed) for seed in range(studies)], folder=tmp_path))[
            "The variance of the gradient falls as 1/k"
        ]
        for studies in (1, 6)
    ]
    assert marks == ["not reproduced", "undecided"]


def test_only_the_ratio_that_a_batch_can_change_is_judged() -> None:
    paper = {16: (5.58, 11.77, 16.59), 256: (9.82, 16.11, 16.91)}  # Table 1
    runs = []
    for batch, (first, middle, last) in paper.items():
        epochs = [
            {"epoch": e, "rpn_ratio_percent": 14.2, "roi_ratio_percent": first if e < 6 else middle if e < 11 else last}
            for e in range(1, 12)
        ]
        runs += [run_of((batch, 16, "normal", 1.0), 30.0, seed=seed, epochs=epochs) for seed in range(3)]
    assert verdicts(group_of(runs))["A larger batch makes positive and negative samples more balanced"] == "reproduced"


def test_a_run_that_finished_without_a_number_has_not_failed() -> None:
    runs = [run_of(A, 30.0), *(run_of(B, None, seed=seed) for seed in (0, 1))]
    assert converges(Evidence(group_of(runs)), [A]).holds is True
    assert converges(Evidence(group_of(runs)), [B]).holds is None
    assert fails(Evidence(group_of(runs)), B).holds is None


def test_a_study_of_single_gradients_says_nothing_of_the_gradients_variance(tmp_path: Path) -> None:
    study = {"modules": {"all": {"1": {"ratio": 1.0, "error": 0.0}}}}
    (tmp_path / "gradient_variance.json").write_text(json.dumps(study))
    found = verdicts(group_of([run_of(A, 30.0)], folder=tmp_path))
    assert found["The variance of the gradient falls as 1/k"] == "not testable here"
