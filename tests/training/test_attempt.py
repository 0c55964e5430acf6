"""What an attempt does when the cluster wants its nodes back, and when its folder has become another's."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from megdet.errors import ExitCode
from megdet.planning.plan import Plan, make_plan
from megdet.runs.folder import LostOwnership, RunFolder
from megdet.runs.journal import read_journal
from megdet.training.attempt import Attempt
from megdet.training.checkpoint import Checkpoint
from megdet.training.distributed import Ranks
from tests.ranks import run_ranks
from tests.runs.folders import owned
from tests.training.test_run import EPOCHS, STEPS_PER_EPOCH, config_of, folder_of

CPU = torch.device("cpu")


@dataclass
class Stop:
    """Takes the place of `StopSignals`, whose handlers would stay in the test's process."""

    requeue: bool = False
    folder: RunFolder | None = None
    """Taken over by another attempt in the second step."""
    asked: int = 0

    def requested(self) -> bool:
        self.asked += 1
        if self.folder and self.asked == 2:
            self.folder.claim("another")
        return False

    def requeue_wanted(self) -> bool:
        return self.requeue


@dataclass
class Job:
    """A job that can go back into the queue, and was edited while it waited there."""

    can_requeue: bool = True
    requeued: list[bool] = field(default_factory=list)

    def edits_since_submission(self) -> list[str]:
        return ["code"]

    def requeue(self) -> bool:
        self.requeued.append(True)
        return True


def attempt(plan: Plan, stop: Stop, job: Job | None) -> tuple[Any, Job | None]:
    ranks = Ranks(dist.get_rank(), dist.get_rank(), dist.get_world_size(), CPU)
    try:
        code = Attempt(plan, RunFolder(folder_of(plan)).owned_by("test"), ranks, stop, job).go()  # type: ignore[arg-type]
    except LostOwnership:
        return LostOwnership, job
    return code, job


@pytest.fixture
def plan(tmp_path: Path, shapes_root: Path) -> Plan:
    plan = make_plan(config_of(tmp_path, shapes_root))
    owned(folder_of(plan)).write_plan(plan.to_json())
    return plan


def events_of(folder: RunFolder) -> list[str]:
    return [line["event"] for line in read_journal(folder) if line["kind"] == "event"]


def test_a_job_that_has_to_make_room_in_an_evaluation_requeues_and_evaluates_later(plan: Plan) -> None:
    folder = RunFolder(folder_of(plan))
    ((code, job),) = run_ranks(1, attempt, plan, Stop(requeue=True), Job())
    assert code == ExitCode.INTERRUPTED and job.requeued == [True]
    assert events_of(folder) == ["started", "edited_while_queued", "requeued", "interrupted"]
    assert not any(line["kind"] == "epoch" for line in read_journal(folder))
    checkpoint = Checkpoint.read(folder.checkpoint, CPU)
    assert checkpoint is not None and checkpoint.state.step == STEPS_PER_EPOCH == checkpoint.state.totals.steps

    assert run_ranks(1, attempt, plan, Stop(), None) == [(ExitCode.OK, None)]
    lines = read_journal(folder)
    assert [line["step"] for line in lines if line["kind"] == "step"] == list(range(1, EPOCHS * STEPS_PER_EPOCH + 1))
    first, *_ = epochs = [line for line in lines if line["kind"] == "epoch"]
    assert [line["epoch"] for line in epochs] == [1, 2, 3]
    assert first["loss"] > 0 and first["rpn_negative"] > 0, "sums of the first attempt's steps"


def test_a_rank_without_a_job_evaluates_to_the_end_whatever_the_signal(plan: Plan) -> None:
    assert run_ranks(1, attempt, plan, Stop(requeue=True), None) == [(ExitCode.OK, None)]
    assert events_of(RunFolder(folder_of(plan))) == ["started", "finished"]


def test_an_attempt_whose_folder_has_become_anothers_leaves_its_checkpoint_alone(
    tmp_path: Path, shapes_root: Path
) -> None:
    config = config_of(tmp_path, shapes_root)
    config.log_every = 1000  # so that the checkpoint is the first thing to be written
    plan = make_plan(config)
    folder = owned(folder_of(plan))
    folder.write_plan(plan.to_json())
    assert run_ranks(1, attempt, plan, Stop(folder=folder), None) == [(LostOwnership, None)]
    assert folder.current_owner() == "another" and not folder.checkpoint.exists()
