"""How many epochs two runs share: the rule against the learning rates of all steps, and what makes runs strangers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megdet.config.schedule import ScheduleSettings
from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.planning.fork import Fork, shared_epochs
from megdet.planning.plan import Plan, earlier_plan, make_plan

NORMAL = ScheduleSettings()
LONG = ScheduleSettings(name="long", epochs=18, milestones=[11, 14, 17], factors=[0.1, 0.1, 0.5])


def plan_of(schedule: ScheduleSettings, change: Callable[[Config], None] = lambda config: None) -> Plan:
    config = Config(batch=16, bn_size=16, schedule=copy.deepcopy(schedule))
    config.cluster.nodes, config.cluster.gpus_per_node = 16, 8
    config.data.train_images = 160
    change(config)
    return make_plan(config)


schedules = st.builds(
    lambda epochs, drops, warmup: ScheduleSettings(
        epochs=epochs,
        milestones=sorted(drop for drop in drops if drop < epochs),
        factors=[drops[drop] for drop in sorted(drops) if drop < epochs],
        warmup_epochs=warmup,
    ),
    st.integers(1, 6),
    st.dictionaries(st.integers(2, 5), st.sampled_from([0.1, 0.5]), max_size=3),
    st.sampled_from([0.0, 0.5, 1.0]),
)


def test_long_shares_with_normal_what_comes_before_the_first_drop() -> None:
    assert shared_epochs(plan_of(NORMAL), plan_of(LONG)) == 8


def test_a_longer_run_shares_all_epochs_of_the_shorter_one() -> None:
    assert shared_epochs(plan_of(NORMAL), plan_of(replace(NORMAL, epochs=18))) == 11


@given(schedules, schedules)
def test_epochs_are_shared_exactly_while_every_step_has_the_same_learning_rate(
    one: ScheduleSettings, other: ScheduleSettings
) -> None:
    first, second = plan_of(one, double), plan_of(other, double)
    shared = shared_epochs(first, second)
    per_epoch = first.schedule.steps_per_epoch
    equal = [first.schedule.lr_at(step) == second.schedule.lr_at(step) for step in range(6 * per_epoch)]
    most = min(one.epochs, other.epochs)
    assert shared == next((epoch for epoch in range(most) if not all(equal[: (epoch + 1) * per_epoch])), most)
    assert shared_epochs(second, first) == shared


def double(config: Config) -> None:
    """So that there is a warm-up."""
    config.batch = config.bn_size = 32
    config.data.train_images = 320


@pytest.mark.parametrize(
    "change",
    [
        lambda config: setattr(config, "seed", 1),
        lambda config: setattr(config, "bn_size", 2),
        lambda config: setattr(config, "gpus", 4),
        lambda config: setattr(config, "precision", "bf16"),
        lambda config: setattr(config.data, "name", "other"),
        lambda config: setattr(config.lr, "scale", 0.5),
        lambda config: setattr(config.optimizer, "momentum", 0.8),
        lambda config: setattr(config.cluster, "request_gpus", False),
        lambda config: setattr(config.schedule, "warmup_epochs", 0.5),
    ],
    ids=["seed", "bn_size", "gpus", "precision", "data", "lr", "optimizer", "device", "warm-up"],
)
def test_runs_that_differ_in_anything_else_share_nothing(change: Callable[[Config], None]) -> None:
    def larger(config: Config) -> None:  # with a warm-up
        config.batch = 32
        change(config)

    plain = plan_of(NORMAL, lambda config: setattr(config, "batch", 32))
    assert shared_epochs(plain, plain) == 11
    assert shared_epochs(plain, plan_of(LONG, larger)) == 0


def test_what_a_schedule_of_one_s_own_does_is_not_known_to_a_plan() -> None:
    own = ScheduleSettings(name="mine", milestones=[], factors=[], custom={"_target_": "mine.Cosine"})
    assert shared_epochs(plan_of(own), plan_of(replace(own, epochs=18))) == 0


def test_what_says_only_where_and_how_changes_nothing() -> None:
    def elsewhere(config: Config) -> None:
        config.runs_dir, config.data.root, config.log_every = "elsewhere", "/mnt/coco", 7
        config.tracking.enabled = False

    assert shared_epochs(plan_of(NORMAL), plan_of(LONG, elsewhere)) == 8


def test_a_plan_keeps_its_fork_and_a_damaged_one_is_refused() -> None:
    plan = replace(plan_of(LONG), fork=Fork("b16-bn16-normal-s0-0123abcd", 8), keep_epochs=(8, 11))
    assert Plan.from_json(plan.to_json()) == plan
    for good, bad in (('"epoch": 8', '"epoch": "8"'), ('"epoch": 8', '"epoch": 0'), ("11\n", "true\n")):
        assert good in plan.to_json()
        with pytest.raises(UserError, match=r"plan\.json is damaged"):
            Plan.from_json(plan.to_json().replace(good, bad))


def test_plans_of_before_there_were_forks_are_read() -> None:
    plan = plan_of(NORMAL)
    text = plan.to_json()
    begin = text.index(',\n  "fork"')
    assert Plan.from_json(text[:begin] + "\n}") == plan
    assert earlier_plan(text.replace('"fork": true,', "")) == plan
