"""What runs need of a cluster, and which runs share an array."""

from __future__ import annotations

from dataclasses import replace

import pytest

from megdet.errors import UserError
from megdet.launchers.slurm.resources import Resources, arrays_of
from megdet.planning.fork import Fork
from tests.launchers.conftest import PlanFor


def test_runs_with_equal_resources_share_an_array(plan_for: PlanFor) -> None:
    plans = [
        plan_for(16, 16),
        plan_for(64, 16),
        plan_for(32, 32),
        plan_for(64, 16, seed=1),
        plan_for(16, 16, time_min=9),
    ]
    arrays = arrays_of(plans, max_array_size=1001)
    assert [[plans.index(plan) for plan in array.plans] for array in arrays] == [[0, 2], [1, 3], [4]]
    assert [array.resources.describe() for array in arrays] == [
        "1 node x 8 GPUs, 1440 min", "4 nodes x 8 GPUs, 1440 min", "1 node x 8 GPUs, 9 min",
    ]  # fmt: skip


def test_a_run_asks_for_the_time_that_it_may_take_and_never_for_more_than_the_longest(plan_for: PlanFor) -> None:
    plans = [plan_for(16, 16, seed=seed) for seed in range(6)]
    arrays = arrays_of(plans, max_array_size=1001, hours=[0.2, 3.1, 3.9, 11.0, 40.0, None])
    assert [(array.resources.time_min, len(array.plans)) for array in arrays] == [(60, 1), (480, 2), (1440, 3)]


def test_runs_that_go_on_from_others_come_after_these(plan_for: PlanFor) -> None:
    first, other, second, third = (plan_for(16, 16, seed=seed) for seed in range(4))
    second = replace(second, fork=Fork(first.run_id, 8))
    third = replace(third, fork=Fork(second.run_id, 11))
    plans = [first, second, third, other]
    arrays = arrays_of(plans, max_array_size=1001)
    assert [[plans.index(plan) for plan in array.plans] for array in arrays] == [[0, 3], [1], [2]]
    assert [array.sources for array in arrays] == [(), (first.run_id,), (second.run_id,)]


def test_a_run_that_goes_on_from_one_under_way_holds_no_other_back(plan_for: PlanFor) -> None:
    free, forked = (plan_for(16, 16, seed=seed) for seed in range(2))
    forked = replace(forked, fork=Fork("b16-bn16-normal-s9-0123abcd", 8))
    arrays = arrays_of([forked, free], max_array_size=1001)
    assert [(array.plans, array.sources) for array in arrays] == [
        ((free,), ()), ((forked,), ("b16-bn16-normal-s9-0123abcd",)),
    ]  # fmt: skip


def test_an_array_is_never_larger_than_slurm_takes(plan_for: PlanFor) -> None:
    arrays = arrays_of([plan_for(16, 16, seed=seed) for seed in range(7)], max_array_size=3)
    assert [len(array.plans) for array in arrays] == [3, 3, 1]


@pytest.mark.parametrize(
    ("site", "words"),
    [
        ({"time_min": 2, "signal_delay_s": 120}, "cluster.time_min=2"),
        ({"time_min": 0}, "cluster.time_min=0"),
        ({"signal_delay_s": 1}, "cluster.signal_delay_s=1"),
        ({"array_parallelism": 0}, "cluster.array_parallelism=0"),
    ],
)
def test_settings_that_cannot_become_a_job_are_refused(site: dict[str, int], words: str, plan_for: PlanFor) -> None:
    with pytest.raises(UserError, match=words):
        Resources.of(plan_for(16, 16, **site))
