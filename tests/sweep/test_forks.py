"""Which run of a sweep goes on from which, and what is kept for it: plans and folders, nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import pytest

from megdet.config.experiments import Asked
from megdet.config.schema import Config
from megdet.planning.fork import Fork
from megdet.planning.plan import Plan, make_plan
from megdet.runs.folder import folder_of
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.sweep.forks import with_forks
from megdet.sweep.points import Point
from tests.runs.folders import owned


def plan_of(runs: Path, epochs: int, *milestones: int, seed: int = 0, **sweep: object) -> Plan:
    """Of 10 steps an epoch; the learning rate drops at the milestones."""
    config = Config(batch=16, bn_size=16, seed=seed, runs_dir=str(runs))
    config.schedule.epochs, config.schedule.milestones = epochs, list(milestones)
    config.schedule.factors = [0.1] * len(milestones)
    config.cluster.gpus_per_node, config.data.train_images = 8, 160
    for key, value in sweep.items():
        setattr(config.sweep, key, value)
    return make_plan(config)


def forked(plans: Sequence[Plan], *statuses: Status) -> list[tuple[Fork | None, tuple[int, ...]]]:
    """What each plan goes on from, and what it keeps; those without a status are new."""
    pairs = zip_longest(plans, statuses, fillvalue=Status.NEW)
    points = [Point(Asked((), plan.config), plan, status) for plan, status in pairs]
    return [(point.plan.fork, point.plan.keep_epochs) for point in with_forks(points) if point.plan]


def leave(plan: Plan, status: Status, *, step: int) -> None:
    """A run's folder, as far as it has come."""
    folder = owned(folder_of(plan).path)
    folder.write_plan(plan.to_json())
    folder.write_state(RunState(status, attempts=1, started="2020-01-01T00:00:00+00:00", step=step))
    folder.checkpoint.touch()


def test_of_runs_that_share_epochs_the_first_trains_them_in_either_order(tmp_path: Path) -> None:
    short, long = plan_of(tmp_path, 11, 8, 10), plan_of(tmp_path, 18, 11, 14)
    assert forked([short, long]) == [(None, (8,)), (Fork(short.run_id, 8), ())]
    assert forked([long, short]) == [(None, (8,)), (Fork(long.run_id, 8), ())]


def test_a_run_goes_on_from_the_one_with_which_it_shares_most(tmp_path: Path) -> None:
    first, second, third = plan_of(tmp_path, 9, 4), plan_of(tmp_path, 9, 6), plan_of(tmp_path, 9, 6, 8)
    assert forked([first, second, third]) == [
        (None, (4,)), (Fork(first.run_id, 4), (8,)), (Fork(second.run_id, 8), ()),
    ]  # fmt: skip


def test_what_a_run_has_not_trained_itself_is_taken_from_where_it_was(tmp_path: Path) -> None:
    first, second, third = plan_of(tmp_path, 9, 6), plan_of(tmp_path, 9, 7), plan_of(tmp_path, 9, 4)
    assert forked([first, second, third]) == [
        (None, (4, 6)), (Fork(first.run_id, 6), ()), (Fork(first.run_id, 4), ()),
    ]  # fmt: skip


def test_other_seeds_and_runs_that_shall_not_share_nothing(tmp_path: Path) -> None:
    plans = [plan_of(tmp_path, 11, 8), plan_of(tmp_path, 18, 11, seed=1), plan_of(tmp_path, 18, 12, fork=False)]
    assert forked(plans) == [(None, ())] * 3


def test_a_finished_run_is_made_longer(tmp_path: Path) -> None:
    ended, longer = plan_of(tmp_path, 11, 8), plan_of(tmp_path, 18, 8)
    leave(ended, Status.FINISHED, step=110)
    assert forked([longer]) == [(Fork(ended.run_id, 11), ())]
    assert forked([plan_of(tmp_path, 18, 8, on_existing="force")]) == [(None, ())], "all begins anew"


def test_a_finished_run_that_kept_no_checkpoint_of_the_fork_is_none_to_go_on_from(tmp_path: Path) -> None:
    ended, other = plan_of(tmp_path, 11, 8), plan_of(tmp_path, 18, 11)
    leave(ended, Status.FINISHED, step=110)
    assert forked([other]) == [(None, ())]
    [point] = with_forks([Point(Asked((), other.config), other, Status.NEW)])
    assert f"first 8 epochs are those of {ended.run_id}, which has no checkpoint of epoch 8" in point.why
    folder_of(ended).kept_checkpoint(8).touch()
    assert forked([other]) == [(Fork(ended.run_id, 8), ())]


@pytest.mark.parametrize("step", [79, 90])
def test_a_run_that_goes_on_gives_what_it_has_still_to_train(step: int, tmp_path: Path) -> None:
    stopped, other = plan_of(tmp_path, 11, 8), plan_of(tmp_path, 18, 11)
    leave(stopped, Status.INTERRUPTED, step=step)
    fork = Fork(stopped.run_id, 8) if step < 80 else None
    assert forked([stopped, other], Status.INTERRUPTED) == [(None, (8,) if fork else ()), (fork, ())]


def test_what_a_run_was_to_keep_it_keeps_when_it_goes_on(tmp_path: Path) -> None:
    stopped = plan_of(tmp_path, 11, 8)
    leave(replace(stopped, keep_epochs=(8,)), Status.INTERRUPTED, step=30)
    assert forked([stopped], Status.INTERRUPTED) == [(None, (8,))]


def test_a_run_that_has_begun_goes_on_from_its_own_checkpoint(tmp_path: Path) -> None:
    short, long = plan_of(tmp_path, 11, 8), plan_of(tmp_path, 18, 11)
    leave(long, Status.INTERRUPTED, step=20)
    assert forked([short, long], Status.NEW, Status.INTERRUPTED) == [(None, ()), (None, ())]
