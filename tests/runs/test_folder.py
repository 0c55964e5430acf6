"""A run's folder has one owner, and every write of it is whole."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from megdet.launchers.local.lock import locked
from megdet.runs.beats import Beat, write_beat
from megdet.runs.failure import Failure
from megdet.runs.files import replace_file
from megdet.runs.folder import LostOwnership, RunFolder
from megdet.runs.journal import Journal, read_journal
from megdet.runs.run_files import FAILURE, OWNER, STATE
from megdet.runs.state import RunState
from megdet.runs.status import Status
from tests.runs.fabricate import fabricate_run
from tests.runs.folders import owned

RUNNING = RunState(Status.RUNNING, attempts=1, started="2026-11-20T10:00:00+00:00")


def test_an_attempt_that_lost_the_folder_writes_nothing_any_more(tmp_path: Path) -> None:
    first = RunFolder(tmp_path).claim("first")
    first.write_state(RUNNING)
    journal = Journal(first)
    journal.step(1, epoch=0.1, loss=2.0)
    second = RunFolder(tmp_path).claim("second")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for write in (
        lambda: first.write_state(RUNNING),
        lambda: first.write_plan("{}"),
        lambda: first.write_failure(Failure.of_death(0, "gone", log=())),
        lambda: first.write_first_failure(Failure.of_death(0, "gone", log=())),
        lambda: first.forget_failure(),
        lambda: journal.step(2, epoch=0.2, loss=1.0),
        lambda: journal.drop_after(0),
        lambda: Journal(first),
    ):
        with pytest.raises(LostOwnership, match="second"):
            write()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    journal.close()
    second.write_state(RUNNING)


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    RunFolder(tmp_path).claim("somebody")
    with pytest.raises(LostOwnership):
        RunFolder(tmp_path).write_state(RUNNING)


def test_a_folder_that_nobody_claimed_is_nobodys(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).current_owner() is None
    with pytest.raises(LostOwnership):
        RunFolder(tmp_path).owned_by("me").write_state(RUNNING)


def test_ranks_of_one_attempt_share_the_folder(tmp_path: Path) -> None:
    RunFolder(tmp_path).claim("123_4.0")
    RunFolder(tmp_path).owned_by("123_4.0").write_state(RUNNING)
    assert RunFolder(tmp_path).state() == RUNNING


def test_of_ranks_that_fail_together_the_first_is_kept_and_whole(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path).claim("attempt")
    firsts: list[bool] = []

    def fail(rank: int) -> None:
        firsts.append(folder.write_first_failure(Failure.of_death(rank, f"rank {rank}", log=("a", "b"))))

    threads = [threading.Thread(target=fail, args=(rank,)) for rank in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert firsts.count(True) == 1
    failure = folder.failure()
    assert failure is not None and failure.reason == f"rank {failure.rank}" and failure.log == ("a", "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == [FAILURE, OWNER]


def test_a_damaged_failure_does_not_hide_that_the_run_failed(tmp_path: Path) -> None:
    (tmp_path / FAILURE).write_text("{")
    assert RunFolder(tmp_path).failure() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"status": "on holiday"}', '{"status": "running"}', "\xff"])
def test_a_damaged_state_is_one_clear_message(tmp_path: Path, text: str) -> None:
    (tmp_path / STATE).write_bytes(text.encode("latin1"))
    folder = RunFolder(tmp_path)
    assert folder.state() is None and "state.json is damaged" in folder.damage() and "\n" not in folder.damage()
    (tmp_path / STATE).unlink()
    assert folder.state() is None and folder.damage() == ""


def test_the_state_of_a_run_of_megdet_0_1_is_read(tmp_path: Path) -> None:
    old = {"state": "finished", "attempts": 2, "started": "2026-11-20T10:00:00+00:00", "ended": None, "train_s": 1.5,
           "eval_s": 0.5, "step": 7, "reason": None}  # fmt: skip
    (tmp_path / STATE).write_text(json.dumps(old))
    state = RunFolder(tmp_path).state()
    assert state is not None and (state.status, state.attempts, state.step) == (Status.FINISHED, 2, 7)


def test_two_writers_of_one_file_never_share_a_temporary_one(tmp_path: Path) -> None:
    target, texts = tmp_path / "file", [letter * 100_000 for letter in "ab"]

    def write(text: str) -> None:
        for _ in range(20):
            replace_file(target, text)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_text() in texts and [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_journal_is_read_by_those_who_do_not_own_it(tmp_path: Path) -> None:
    with Journal(RunFolder(tmp_path).claim("attempt")) as journal:
        journal.step(1, epoch=0.1, loss=2.0)
    assert [line["step"] for line in read_journal(RunFolder(tmp_path))] == [1]


def test_every_status_is_either_new_live_a_result_a_failure_or_can_go_on() -> None:
    for status in Status:
        kinds = [status == Status.NEW, status.is_live, status.is_result, status == Status.FAILED, status.can_go_on]
        assert sum(kinds) == 1, status


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o027, 0o640), (0o002, 0o664)])
def test_the_files_of_a_run_are_for_whom_the_users_umask_says(mask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        folder = owned(fabricate_run(tmp_path, {}))
        folder.reserve_room()
        write_beat(folder, Beat("test", 0, 7, "evaluating", progress_at=0.0, limit_s=60.0))
        with locked(folder, patience_s=0):
            pass
    finally:
        os.umask(before)
    files = [path for path in folder.path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"plan.json", "state.json", "metrics.jsonl", "owner.json", ".lock"}
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in files} == {path.name: mode for path in files}
