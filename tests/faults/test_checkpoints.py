"""Faults of checkpoints: cut short, with flipped bits, of another run, deleted."""

from __future__ import annotations

import random
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from megdet.config.experiments import Asked
from megdet.errors import UserError
from megdet.runs.folder import RunFolder
from megdet.runs.run_files import UNUSED_CHECKPOINT
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.sweep.points import plan_points
from megdet.training.checkpoint import Checkpoint, DamagedCheckpoint
from megdet.training.state import TrainingState
from tests.faults.runs import a_plan, events_of, finish, is_the_same_as, refused, run_folder_of, stopped_after
from tests.runs.folders import owned
from tests.training.test_checkpoint import make_step, training

CPU = torch.device("cpu")


def write_checkpoint(path: Path, step: int = 7) -> None:
    model, optimizer = training(step)
    make_step(model, optimizer)
    Checkpoint.of("run-s0", model, optimizer, TrainingState(step=step)).write(path)


def test_flipped_bits_are_refused_wherever_they_are(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path)
    assert Checkpoint.read(path, CPU) is not None
    whole, generator = path.read_bytes(), random.Random(0)
    for _ in range(400):
        broken = bytearray(whole)
        for _ in range(generator.choice((1, 2))):
            broken[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        path.write_bytes(broken)
        with pytest.raises(DamagedCheckpoint) as refused:
            Checkpoint.read(path, CPU)
        assert str(path) in str(refused.value) and "\n" not in str(refused.value)


def test_a_checkpoint_is_an_archive_that_other_tools_read(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path)
    assert torch.load(path, weights_only=True)["run_id"] == "run-s0"
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None and archive.comment.startswith(b"megdet sha256 ")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04" + bytes(200)])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(DamagedCheckpoint, match=r"checkpoint\.pt is damaged, or no checkpoint"):
        Checkpoint.read(path, CPU)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save({"run_id": "run-s0", "state": Malice(tmp_path / "was_here")}, path)
    with pytest.raises(DamagedCheckpoint, match=r"checkpoint\.pt is damaged, or no checkpoint"):
        Checkpoint.read(path, CPU)
    assert not (tmp_path / "was_here").exists()


class Malice:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("links", [True, False], ids=["links", "no_links"])
def test_one_whole_checkpoint_is_there_at_every_moment_of_a_save(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = owned(tmp_path)
    write_checkpoint(folder.checkpoint, 7)
    if not links:
        monkeypatch.setattr("os.link", no_links)
    seen: list[list[int]] = []

    def look() -> None:
        folder.keep_checkpoint()
        found = [Checkpoint.read(path, CPU) for path in (folder.checkpoint, folder.previous_checkpoint)]
        seen.append([checkpoint.state.step for checkpoint in found if checkpoint])

    model, optimizer = training(0)
    Checkpoint.of("run-s0", model, optimizer, TrainingState(step=8)).write(folder.checkpoint, before=look)
    assert seen == ([[7, 7]] if links else [[7]])
    last, previous = (Checkpoint.read(path, CPU) for path in (folder.checkpoint, folder.previous_checkpoint))
    assert last is not None and previous is not None and (last.state.step, previous.state.step) == (8, 7)


def test_a_save_that_was_killed_between_its_two_renames_leaves_no_third_checkpoint(tmp_path: Path) -> None:
    folder = owned(tmp_path)
    for step in (7, 8):
        write_checkpoint(folder.checkpoint, step)
        folder.keep_checkpoint()  # and the new one never comes: both names are of one file now
        folder.keep_checkpoint()
        folder.keep_checkpoint_of(1)
        folder.keep_checkpoint_of(1)
    (folder.path / ".checkpoint-previous.pt.01234567").write_bytes(b"of an earlier version")
    folder.keep_checkpoint()
    names = sorted(path.name for path in folder.path.iterdir() if "checkpoint" in path.name)
    assert names == ["checkpoint-epoch01.pt", "checkpoint-previous.pt", "checkpoint.pt"]
    folder.forget_checkpoints()
    assert not [path for path in folder.path.iterdir() if "checkpoint" in path.name]


def no_links(*_: object) -> None:
    raise OSError("no links here")


@pytest.mark.slow
def test_a_truncated_checkpoint_costs_the_steps_since_the_one_before_it(
    undisturbed: RunFolder, tmp_path: Path, shapes_root: Path
) -> None:
    plan = a_plan(tmp_path, shapes_root)
    folder = stopped_after(plan, 3)
    with folder.checkpoint.open("r+b") as file:
        file.truncate(1000)
    said = finish(plan)
    assert f"{folder.checkpoint} is damaged" in said and "it goes on from checkpoint-previous.pt, step" in said
    assert events_of(folder) == [
        "started",
        "interrupted",
        "resumed",
        "not_as_it_was_left",
        "not_as_it_was_left",
        "finished",
    ]
    assert (folder.path / UNUSED_CHECKPOINT).stat().st_size == 1000 and not folder.previous_checkpoint.exists()
    assert is_the_same_as(folder, undisturbed)


@pytest.mark.slow
def test_a_deleted_checkpoint_is_no_silent_restart(tmp_path: Path, shapes_root: Path) -> None:
    plan = a_plan(tmp_path, shapes_root)
    folder = stopped_after(plan, 2)
    before = folder.journal.read_text()
    folder.checkpoint.unlink()
    folder.previous_checkpoint.unlink()
    said = refused(plan)
    assert f"{folder.checkpoint} is missing, and the run has made" in said and "sweep.on_existing=force" in said
    assert folder.journal.read_text() == before


def test_a_deleted_checkpoint_is_said_before_a_run_is_handed_over(tmp_path: Path, shapes_root: Path) -> None:
    asked = Asked((), a_plan(tmp_path, shapes_root).config)
    (point,) = plan_points([asked], to_run_here=False)
    assert point.plan is not None and point.status == Status.NEW
    folder = owned(run_folder_of(point.plan).path)
    folder.write_state(RunState(Status.INTERRUPTED, 1, "2026-11-20T10:00:00+00:00", step=5))
    (again,) = plan_points([asked], to_run_here=False)
    assert again.plan is None and f"{folder.checkpoint} is missing" in again.why


@pytest.mark.slow
def test_checkpoints_that_are_both_damaged_are_one_message_with_a_way_out(tmp_path: Path, shapes_root: Path) -> None:
    plan = a_plan(tmp_path, shapes_root)
    folder = stopped_after(plan, 2)
    for path in (folder.checkpoint, folder.previous_checkpoint):
        path.write_bytes(path.read_bytes()[:-100])
    said = refused(plan)
    assert all(f"{path} is damaged" in said for path in (folder.checkpoint, folder.previous_checkpoint))
    assert "sweep.on_existing=force" in said


@pytest.mark.slow
def test_another_runs_checkpoint_is_not_trained_to_the_end(tmp_path: Path, shapes_root: Path) -> None:
    plan, other = a_plan(tmp_path, shapes_root), a_plan(tmp_path, shapes_root, seed=2)
    folder, others = stopped_after(plan, 2), stopped_after(other, 2)
    shutil.copy(others.checkpoint, folder.checkpoint)
    assert f"{folder.checkpoint} is of the run {other.run_id}, not of {plan.run_id}" in refused(plan)


def test_a_run_that_made_no_step_needs_no_checkpoint(tmp_path: Path) -> None:
    folder = owned(tmp_path)
    folder.check_checkpoint_is_there()
    folder.write_state(RunState(Status.RUNNING, 1, "2026-11-20T10:00:00+00:00", step=0))
    folder.check_checkpoint_is_there()
    folder.write_state(RunState(Status.RUNNING, 1, "2026-11-20T10:00:00+00:00", step=5))
    with pytest.raises(UserError, match=r"checkpoint\.pt is missing"):
        folder.check_checkpoint_is_there()
