"""How sure a sweep is that adds seeds as it goes: by simulation of what is known, and by numbers made by hand."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from megdet.analysis.claims.evidence import Sample
from megdet.analysis.claims.questions import Question, findings_against, questions_of
from megdet.analysis.run_frames import RunFrames
from tests.analysis.test_claims import RowKey, group_of, run_of

SMALL: RowKey = (16, 16, "normal", 1.0)
FEW: RowKey = (8, 8, "normal", 1.0)
FROZEN: RowKey = (16, 0, "normal", 1.0)
SWEEPS, MOST_SEEDS = 2000, 5


def add_seeds(chance: random.Random, means: Sequence[float], *, looks: int) -> tuple[set[int], int]:
    """Rows about `means` with a deviation of 1, as a sweep adds seeds: which it found to differ from the first, and
    how many runs it made."""
    values = [[chance.gauss(mean, 1) for _ in range(2)] for mean in means]
    differing: set[int] = set()
    for seeds in range(2, MOST_SEEDS + 1):
        samples = [Sample(str(row), tuple(own), failed=False) for row, own in enumerate(values)]
        found = findings_against("0", samples, looks=looks)
        differing |= {int(sample.key) for sample, finding in found if finding.holds is not None}  # type: ignore[arg-type]
        undecided = {int(sample.key) for sample, finding in found if finding.holds is None}  # type: ignore[arg-type]
        if not undecided or seeds == MOST_SEEDS:
            break
        for row in {0, *undecided}:
            values[row].append(chance.gauss(means[row], 1))
    return differing, sum(map(len, values))


@pytest.mark.slow
@pytest.mark.parametrize("rows", [2, 4])
def test_a_difference_that_is_not_there_is_found_in_5_percent_of_sweeps_at_most(rows: int) -> None:
    chance = random.Random(0)
    wrong = sum(bool(add_seeds(chance, [0.0] * rows, looks=MOST_SEEDS - 1)[0]) for _ in range(SWEEPS))
    assert wrong / SWEEPS <= 0.05


@pytest.mark.slow
def test_plain_intervals_would_find_one_in_more_than_10_percent() -> None:
    """What the looks share is no formality: without that, two equal rows are told apart in one sweep of eight."""
    chance = random.Random(0)
    wrong = sum(bool(add_seeds(chance, [0.0, 0.0], looks=1)[0]) for _ in range(SWEEPS))
    assert wrong / SWEEPS > 0.10


def test_rows_that_are_far_apart_take_fewer_seeds_and_are_told_apart() -> None:
    chance = random.Random(0)
    found = [add_seeds(chance, [0.0, 5.0], looks=MOST_SEEDS - 1) for _ in range(SWEEPS)]
    assert sum(differing == {1} for differing, _ in found) / SWEEPS > 0.99
    assert sum(runs for _, runs in found) / SWEEPS < 0.6 * 2 * MOST_SEEDS


def runs_of(values: dict[RowKey, Sequence[float]]) -> RunFrames:
    runs = [run_of(key, mmAP, seed=seed) for key, each in values.items() for seed, mmAP in enumerate(each)]
    return group_of(runs).frames


def ask(values: dict[RowKey, Sequence[float]], *, looks: int = 1) -> list[Question]:
    return questions_of(runs_of(values), {str(key): str(key) for key in values}, looks=looks, measure="mmAP")


def test_a_row_gets_seeds_for_the_claims_that_compare_it() -> None:
    few_images = "Statistics of 2, 4 or 8 images are too inaccurate: worse than of 16"
    rows: dict[RowKey, Sequence[float]] = {
        (batch, bn_size, "normal", 1.0): [20.0, 20.1] for batch, bn_size in ((2, 2), (4, 4), (16, 2))
    }
    questions = {question.text: question for question in ask({**rows, FEW: [35.5, 36.5], SMALL: [36.0, 37.0]})}
    assert set(questions[few_images].rows) == {str(FEW), str(SMALL)}, "the other rows are far below"
    better = next(text for text in questions if "better than the baseline" in text) if len(questions) > 1 else None
    assert better is None, "a claim is no question while a row of it is not part of the sweep"


def test_a_claim_that_is_decided_asks_for_nothing() -> None:
    converging = "With CGBN, batches of 16 to 256 are better than the baseline with frozen BN"
    rows: dict[RowKey, Sequence[float]] = {FROZEN: [30.0, 30.1]}
    for batch, bn_size in ((16, 16), (32, 32), (64, 16), (64, 32), (128, 16), (128, 32), (256, 16), (256, 32)):
        rows[batch, bn_size, "normal", 1.0] = [37.0, 37.1]
    question = next(question for question in ask(rows) if question.text == converging)
    assert (question.answer, question.rows) == ("reproduced", ())


def test_rows_of_no_claim_are_compared_with_the_first() -> None:
    first, same, more = (16, 12, "normal", 1.0), (16, 8, "normal", 1.0), (16, 4, "normal", 1.0)
    values: dict[RowKey, Sequence[float]] = {first: [10.0, 10.4], same: [10.1, 10.5], more: [20.0, 20.4]}
    found = ask(values)
    assert [question.answer for question in found] == ["", "more"]
    assert found[0].rows == (str(same), str(first))


def test_a_row_with_failed_runs_is_less_whatever_its_other_runs_have_and_hides_no_other_row() -> None:
    first, other, third = (16, 12, "normal", 1.0), (16, 8, "normal", 1.0), (16, 4, "normal", 1.0)
    base = [run_of(first, mmAP, seed=seed) for seed, mmAP in enumerate((30.0, 30.2, 30.1))]
    diverged = [run_of(other, None, seed=seed, status="diverged") for seed in range(1, 5)]
    frames = group_of([*base, run_of(other, 36.5, seed=0), *diverged]).frames
    [question] = questions_of(frames, {str(first): "a", str(other): "b"}, looks=4, measure="mmAP")
    assert (question.answer, question.rows) == ("less", ()) and "±" not in question.why
    assert question.why.endswith("runs of b (diverged, or below a tenth of the best mmAP) failed")
    # Of a number that is no accuracy it says nothing, and more seeds would not either.
    [question] = questions_of(frames, {str(first): "a", str(other): "b"}, looks=4, measure="mmAP", of_accuracy=False)
    assert (question.answer, question.rows) == ("", ())
    values: dict[RowKey, Sequence[float]] = {first: [30.0, 30.2, 30.1], other: [33.0, 33.1, 33.2]}
    [alone] = ask(values, looks=4)
    beside, collapsed = ask({**values, third: [31.0, 0.2, 0.3]}, looks=4)
    assert (alone.answer, beside.answer, collapsed.answer) == ("more", "more", "less")
    assert beside.why == alone.why


def test_each_look_has_to_be_surer_the_more_looks_there_may_be() -> None:
    first, other = (16, 12, "normal", 1.0), (16, 8, "normal", 1.0)
    # The deviation is sqrt 2 on two degrees of freedom, the error sqrt 2 as well: 8 is beyond 4.303 sqrt 2 = 6.1 (5 %),
    # and not beyond 6.205 sqrt 2 = 8.8 (2.5 %, two looks).
    values: dict[RowKey, Sequence[float]] = {first: [30.0, 32.0], other: [38.0, 40.0]}
    assert [question.answer for question in ask(values, looks=1)] == ["more"]
    assert [question.answer for question in ask(values, looks=2)] == [""]
