"""What is reported by name, over passes, ranks and steps."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from megdet.errors import UserError
from megdet.model.output import SampledRegions, TrainingOutput
from megdet.runs.journal import OWN_COLUMNS
from megdet.training.divergence import LossWatch
from megdet.training.loop import data_parallel, train_epoch
from megdet.training.named_sums import NamedSums, StepReport
from megdet.training.totals import EpochTotals, Step
from tests.ranks import run_ranks
from tests.tiny import tiny_detector, tiny_loader

NOTHING = SampledRegions(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.bool))

Pass = tuple[dict[str, float], dict[str, int]]
"""Losses and counts."""


def output_of(losses: dict[str, float], counts: dict[str, int]) -> TrainingOutput:
    return TrainingOutput(
        {name: torch.tensor(value, requires_grad=True) for name, value in losses.items()},
        {name: torch.tensor(value) for name, value in counts.items()},
        NOTHING,
    )


def reports_of(ranks: list[list[list[Pass]]], stops: list[bool]) -> list[StepReport]:
    """What each step comes to; `ranks` has the passes of each step of each rank."""
    sums, reports = NamedSums(), []
    for step in ranks[dist.get_rank()]:
        for losses, counts in step:
            sums.add(output_of(losses, counts))
        reports.append(sums.over_ranks(stop_requested=stops[dist.get_rank()]))
    return reports


def test_losses_and_counts_of_any_name_are_summed_over_passes_and_ranks_step_by_step() -> None:
    first = [
        [({"a": 1.0, "b": 0.5}, {"n": 3}), ({"a": 2.0, "b": 0.25}, {"n": 4})],
        [({"a": 4.0, "b": 0.0}, {"n": 0}), ({"a": 8.0, "b": 1.0}, {"n": 2**20})],
    ]
    second = [[({"a": 0.5, "b": 0.5}, {"n": 1})], [({"a": 0.5, "b": 0.0}, {"n": 1})]]
    ranks = [[first[rank], second[rank]] for rank in range(2)]
    for reports in run_ranks(2, reports_of, ranks, [False, False]):
        assert reports == [
            StepReport({"a": 15.0, "b": 1.75}, {"n": 2**20 + 7}, stop_requested=False),
            StepReport({"a": 1.0, "b": 0.5}, {"n": 2}, stop_requested=False),
        ]


@pytest.mark.parametrize("name", [*sorted(OWN_COLUMNS), "rpn_ratio_percent", "a loss", "=cmd()", "../x", "<b>", "a\n"])
def test_a_loss_or_count_cannot_take_a_column_of_the_journal_nor_a_name_that_is_none(name: str) -> None:
    for output in (output_of({name: 1.0}, {}), output_of({"a": 1.0}, {name: 1})):
        with pytest.raises(UserError, match="the detector reports"):
            NamedSums().add(output)


def test_every_rank_learns_that_one_of_them_was_told_to_stop() -> None:
    step: list[Pass] = [({"a": 1.0}, {})]
    for (report,) in run_ranks(2, reports_of, [[step], [step]], [False, True]):
        assert report == StepReport({"a": 2.0}, {}, stop_requested=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "other",
    [
        ({"a": 1.0}, {"n": 1}),
        ({"a": 1.0, "c": 1.0}, {"n": 1}),
        ({"b": 1.0, "a": 1.0}, {"n": 1}),
        ({"a": 1.0, "b": 1.0}, {}),
    ],
    ids=["fewer", "another", "another order", "no count"],
)
def test_other_names_on_another_rank_or_in_another_pass_are_an_error_that_lists_both(other: Pass) -> None:
    usual: Pass = ({"a": 1.0, "b": 1.0}, {"n": 1})
    message = r"losses a, b; counts n\) in {} and \(losses .*\) in {}; it must report the same names"
    with pytest.raises(AssertionError) as failed:
        run_ranks(2, reports_of, [[[usual]], [[other]]], [False, False])
    for rank in ("rank 0:\n", "rank 1:\n"):
        assert rank in str(failed.value), "it is told on every rank, so that none waits for another"
    assert failed.match(message.format("rank 0", "rank 1"))
    sums = NamedSums()
    sums.add(output_of(*usual))
    with pytest.raises(ValueError, match=message.format("an earlier pass", "this one")):
        sums.add(output_of(*other))


def test_a_name_that_is_a_loss_and_a_count_is_an_error() -> None:
    with pytest.raises(ValueError, match="reports a as a loss and as a count"):
        NamedSums().add(output_of({"a": 1.0}, {"a": 1}))


def step_of(losses: dict[str, float], counts: dict[str, float]) -> Step:
    return Step(1, lr=0.1, losses=losses, counts=counts, grad_norm=2.0)


def test_an_epoch_has_means_of_losses_and_sums_of_counts() -> None:
    totals = EpochTotals()
    totals.add(step_of({"a": 1.0, "b": 2.0}, {"n": 3.0}), seconds=0.5)
    totals.add(step_of({"a": 2.0, "b": 4.0}, {"n": 4.0}), seconds=0.25)
    assert totals.means() == {"loss": 4.5, "a": 1.5, "b": 3.0, "grad_norm": 2.0}
    assert (totals.counts, totals.train_s) == ({"n": 7.0}, 0.75)


@pytest.mark.parametrize(("losses", "counts"), [({"a": 1.0, "b": 1.0}, {"n": 1.0}), ({"a": 1.0}, {})])
def test_a_detector_that_was_edited_in_the_middle_of_an_epoch_is_refused(
    losses: dict[str, float], counts: dict[str, float]
) -> None:
    totals = EpochTotals()
    totals.add(step_of({"a": 1.0}, {"n": 1.0}), seconds=1.0)
    with pytest.raises(UserError, match=r"reported a, n earlier in this epoch.*sweep\.on_existing=force"):
        totals.add(step_of(losses, counts), seconds=1.0)


def collectives_of(root: Path, steps: int) -> dict[str, int]:
    """How often Python asks for a collective in so many steps of two passes, with BN frozen."""
    model = data_parallel(tiny_detector(bn_size=0))
    loader = tiny_loader(root, batch=8, bn_size=0, images_per_gpu=2, accumulation=2)
    originals = {name: getattr(dist, name) for name in ("all_reduce", "all_gather_object", "all_gather")}
    asked = dict.fromkeys(originals, 0)

    def counting(name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            asked[name] += 1
            return originals[name](*args, **options)

        return call

    for name in originals:
        setattr(dist, name, counting(name))
    try:
        train_epoch(
            model,
            islice(loader.epoch(0), steps),
            optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
            lr_at=lambda step: 0.01,
            first_step=0,
            batch=8,
            device=torch.device("cpu"),
            bf16=False,
            clip_grad_norm=None,
            watch=LossWatch(),
            totals=EpochTotals(),
            stop_requested=lambda: False,
            on_step=lambda step, seconds: None,
        )
    finally:
        for name, original in originals.items():
            setattr(dist, name, original)
    return asked


def test_beside_the_gradients_a_step_takes_one_all_reduce_and_an_epoch_one_look_at_the_names(shapes_root: Path) -> None:
    for asked in run_ranks(2, collectives_of, shapes_root, 3):
        assert (asked["all_reduce"], asked["all_gather_object"]) == (3, 1)
