"""Faults that make journal, state and checkpoint disagree: what is missing is done again, or refused with a way out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from megdet.errors import UserError
from megdet.planning.plan import Plan
from megdet.runs.folder import RunFolder
from megdet.runs.journal import Journal, read_journal
from megdet.runs.run_files import UNUSED_CHECKPOINT
from megdet.runs.status import Status
from megdet.training.checkpoint import Checkpoint
from megdet.training.resume import GoingOn, going_on
from megdet.training.state import TrainingState
from tests.faults.runs import a_plan, events_of, finish, is_the_same_as, refused, run_folder_of, stopped_after
from tests.ranks import run_ranks
from tests.runs.folders import owned, stand_of
from tests.training.test_checkpoint import training

STEPS_PER_EPOCH = 8


def a_run_at(path: Path, *, last: int, previous: int | None, epochs: list[int], steps: int = 17) -> RunFolder:
    """The folder of a run with checkpoints at these steps and a journal of these epochs."""
    folder = owned(path)
    model, optimizer = training(0)
    for step in filter(None, (previous, last)):
        state = TrainingState(step=step, steps_recorded=step)
        Checkpoint.of("run-s0", model, optimizer, state).write(folder.checkpoint, before=folder.keep_checkpoint)
    with Journal(folder) as journal:
        for step in range(1, steps + 1):
            journal.step(step, epoch=step / STEPS_PER_EPOCH, loss=1.0)
            if step % STEPS_PER_EPOCH == 0 and step // STEPS_PER_EPOCH in epochs:
                journal.epoch(step // STEPS_PER_EPOCH, step=step, mmAP=1.0)
    return folder


def go_on(path: Path) -> GoingOn | str:
    try:
        return going_on(RunFolder(path), "run-s0", steps_per_epoch=STEPS_PER_EPOCH, device=torch.device("cpu"))
    except UserError as error:
        return str(error)


def going(folder: RunFolder) -> Any:
    """On two ranks, which agree."""
    first, second = run_ranks(2, go_on, folder.path)
    if not isinstance(first, str):
        assert (first.path, first.epochs, first.found) == (second.path, second.epochs, second.found)
    return first


def epochs_of(going_on: GoingOn) -> list[int]:
    return [line["epoch"] for line in going_on.epochs]


def test_a_lost_epoch_line_is_evaluated_again_from_the_checkpoint_that_ended_the_epoch(tmp_path: Path) -> None:
    found = going(a_run_at(tmp_path, last=16, previous=12, epochs=[1]))
    assert found.path.name == "checkpoint.pt" and epochs_of(found) == [1] and not found.found


def test_a_lost_epoch_line_before_the_last_checkpoint_sends_the_run_back_to_the_one_before(tmp_path: Path) -> None:
    found = going(a_run_at(tmp_path, last=17, previous=16, epochs=[1]))
    assert found.path.name == "checkpoint-previous.pt" and epochs_of(found) == [1]
    assert "lacks epoch 2, and checkpoint.pt is beyond that (step 17)" in found.found[0]
    assert found.found[1] == "it goes on from checkpoint-previous.pt, step 16"


def test_an_epoch_that_no_checkpoint_can_evaluate_any_more_is_refused(tmp_path: Path) -> None:
    said = going(a_run_at(tmp_path, last=17, previous=12, epochs=[2]))
    assert "metrics.jsonl lacks epoch 1, and checkpoint.pt is beyond that" in said
    assert "sweep.on_existing=force" in said


def test_an_empty_journal_is_refused_where_epochs_were_in_it_and_said_where_steps_were(tmp_path: Path) -> None:
    folder = a_run_at(tmp_path, last=17, previous=16, epochs=[1, 2])
    folder.journal.write_text("")
    assert "lacks epoch 1, 2" in going(folder)
    early = a_run_at(tmp_path / "early", last=5, previous=4, epochs=[], steps=5)
    early.journal.unlink()
    found = going(early)
    assert found.path == early.checkpoint and "has lost 5 lines on single steps" in found.found[0]


def test_a_line_that_says_another_step_than_the_schedule_is_no_epoch(tmp_path: Path) -> None:
    folder = a_run_at(tmp_path, last=17, previous=16, epochs=[1])
    with Journal(folder) as journal:
        journal.epoch(2, step=17, mmAP=1.0)
    assert going(folder).path == folder.previous_checkpoint


def test_a_run_whose_checkpoints_and_state_are_gone_is_known_by_its_journal(tmp_path: Path) -> None:
    folder = a_run_at(tmp_path, last=16, previous=8, epochs=[1, 2])
    folder.checkpoint.unlink()
    folder.previous_checkpoint.unlink()
    assert "checkpoint.pt is missing" in going(folder)


def test_a_line_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    folder = a_run_at(tmp_path, last=16, previous=8, epochs=[1, 2], steps=16)
    once = folder.journal.read_text()
    folder.journal.write_text(once + once)
    with Journal(folder) as journal:
        journal.drop_after(16)
    assert folder.journal.read_text() == once


@pytest.fixture
def copy(undisturbed: RunFolder, tmp_path: Path, shapes_root: Path) -> tuple[Plan, RunFolder]:
    """The undisturbed run's folder once more."""
    plan = a_plan(tmp_path, shapes_root)
    folder = run_folder_of(plan)
    shutil.copytree(undisturbed.path, folder.path)
    return plan, folder


def without_epoch_3(text: str) -> str:
    return "".join(text.splitlines(keepends=True)[:-2])


@pytest.mark.parametrize(
    "cut", [without_epoch_3, lambda text: text[: text.rindex("mmAP")]], ids=["two_lines", "in_a_line"]
)
def test_a_finished_run_whose_last_lines_are_lost_evaluates_them_again(
    cut: Callable[[str], str], copy: tuple[Plan, RunFolder], undisturbed: RunFolder
) -> None:
    plan, folder = copy
    assert stand_of(folder).status == Status.FINISHED
    folder.journal.write_text(cut(folder.journal.read_text()))
    stand = stand_of(folder)
    assert stand.status == Status.INTERRUPTED and "launched again, it evaluates its last epoch" in stand.why
    finish(plan)
    assert stand_of(folder).status == Status.FINISHED and is_the_same_as(folder, undisturbed)


def test_a_finished_run_without_its_journal_is_refused_with_a_way_out(copy: tuple[Plan, RunFolder]) -> None:
    plan, folder = copy
    folder.journal.unlink()
    assert "lacks epoch 1, 2" in refused(plan)


@pytest.mark.slow
def test_a_run_whose_state_is_lost_goes_on_and_counts_its_attempts_by_the_journal(
    tmp_path: Path, shapes_root: Path, undisturbed: RunFolder
) -> None:
    plan = a_plan(tmp_path, shapes_root)
    folder = stopped_after(plan, 3)
    before = folder.state()
    folder.state_file.unlink()
    finish(plan)
    state = folder.state()
    assert state is not None and before is not None and state.attempts == 2
    assert events_of(folder) == ["started", "interrupted", "resumed", "finished"]
    assert is_the_same_as(folder, undisturbed) and not (folder.path / UNUSED_CHECKPOINT).exists()


def test_an_epochs_line_is_on_the_disk_before_the_checkpoint_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(
        "os.fsync", lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
    )
    with Journal(owned(tmp_path)) as journal:
        synced.clear()
        journal.step(1, epoch=1.0, loss=1.0)
        assert not synced
        journal.epoch(1, step=1, mmAP=1.0)
        assert synced == ["metrics.jsonl"]
        assert journal.sync() == (tmp_path / "metrics.jsonl").stat().st_size
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0]) == read_journal(RunFolder(tmp_path))[0]
