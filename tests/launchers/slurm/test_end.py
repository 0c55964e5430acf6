"""What the end of a job makes of its run: results stay, failures are said, and the network's are tried again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from megdet.launchers.slurm.end import end
from megdet.runs.failure import Failure
from megdet.runs.folder import RunFolder
from megdet.runs.state import RunState
from megdet.runs.status import Status
from tests.launchers.conftest import Command
from tests.launchers.slurm.submitted import NAME, attempt, begin, complain, submit, word

RUNNING = f"echo '7|RUNNING|0|{NAME}|None|'"


@pytest.fixture
def submitted(planned_run: RunFolder) -> RunFolder:
    submit(planned_run)
    return planned_run


@pytest.fixture
def asked(command: Command, tmp_path: Path) -> Path:
    """Where a Slurm that has the job running notes what it is asked to do."""
    command("squeue", RUNNING)
    command("scontrol", "echo $@ >> asked")
    return tmp_path / "asked"


def ends(run: RunFolder, code: int, restarts: int = 0) -> int:
    return end(attempt(restarts), run, code, submission=NAME)


def state_of(run: RunFolder) -> RunState:
    state = run.state()
    assert state is not None
    return state


@pytest.mark.parametrize("status", [Status.FINISHED, Status.DIVERGED])
@pytest.mark.parametrize("code", [0, 1, 137])
def test_a_result_is_a_job_that_completed_whatever_came_after_it(
    status: Status, code: int, submitted: RunFolder
) -> None:
    word(begin(submitted), status)
    assert ends(submitted, code) == 0
    assert state_of(submitted).status == status and not submitted.failure_file.exists()


def test_an_interrupted_run_stays_so_and_its_job_did_not_complete(submitted: RunFolder) -> None:
    word(begin(submitted), Status.INTERRUPTED)
    assert ends(submitted, 143) == 3
    assert state_of(submitted).status == Status.INTERRUPTED and not submitted.failure_file.exists()


def test_a_rank_that_its_guard_has_killed_is_started_again_as_one_that_hung(submitted: RunFolder, asked: Path) -> None:
    owned = begin(submitted)
    word(owned, Status.FAILED)
    owned.write_failure(Failure.of_hang(0, "rank 0 has not been heard of for 62 s", stack="", log=()))
    assert ends(submitted, 137) == 137
    assert asked.read_text() == "requeue 7\n"
    assert "to be started again after: rank 0 has not been heard of for 62 s" in str(state_of(submitted).reason)


def test_an_error_of_the_code_is_left_as_it_was_said_and_never_retried(submitted: RunFolder, asked: Path) -> None:
    owned = begin(submitted)
    word(owned, Status.FAILED)
    complain(owned, "ValueError", "ValueError: no such thing")
    assert ends(submitted, 1) == 1
    failure = submitted.failure()
    assert not asked.exists() and failure is not None and failure.error == "ValueError"


def test_a_killed_rank_is_the_cause_though_others_complained_first_and_retried(
    submitted: RunFolder, asked: Path
) -> None:
    for restarts in range(3):
        owned = begin(submitted, restarts)
        word(owned, Status.FAILED, attempts=restarts + 1)
        complain(owned, "RuntimeError", "RuntimeError: [gloo] Connection closed by peer [127.0.0.1]:1234")
        assert ends(submitted, 137, restarts) == 137
        assert "SIGKILL" in str(state_of(submitted).reason)
    failure = submitted.failure()
    assert asked.read_text() == "requeue 7\n" * 2 and state_of(submitted).status == Status.FAILED
    assert failure is not None and "SIGKILL" in failure.reason and failure.rank is None


def test_ranks_that_die_without_a_word_have_failed(submitted: RunFolder, asked: Path) -> None:
    word(submitted.owned_by(NAME), Status.FINISHED, attempts=1)
    begin(submitted)
    assert ends(submitted, 1) == 1, "the finished attempt was an earlier one"
    assert (state_of(submitted).status, state_of(submitted).attempts) == (Status.FAILED, 2)
    assert ends(submitted, 0, restarts=1) == 1, "nobody said that it finished"


def test_a_lost_connection_is_retried_and_only_so_often(submitted: RunFolder, asked: Path) -> None:
    for restarts in range(4):
        owned = begin(submitted, restarts)
        word(owned, Status.FAILED, attempts=restarts + 1)
        complain(owned, "DistBackendError", "NCCL error: remote process exited or there was a network error")
        assert ends(submitted, 1, restarts) == 1
        assert state_of(submitted).status == (Status.INTERRUPTED if restarts < 2 else Status.FAILED)
    assert asked.read_text() == "requeue 7\n" * 2


def test_a_job_that_cannot_be_requeued_has_failed_as_it_said(
    submitted: RunFolder, asked: Path, command: Command
) -> None:
    command("scontrol", "echo 'Requested operation is presently disabled' >&2; exit 1")
    owned = begin(submitted)
    word(owned, Status.FAILED, reason="RuntimeError: Connection reset")
    complain(owned, "DistBackendError", "Connection reset by peer")
    assert ends(submitted, 1) == 1
    assert (state_of(submitted).status, state_of(submitted).reason) == (Status.FAILED, "RuntimeError: Connection reset")


def test_ranks_that_slurm_could_not_start_are_started_again(submitted: RunFolder, asked: Path) -> None:
    assert ends(submitted, 137) == 137
    assert asked.read_text() == "requeue 7\n"
    assert state_of(submitted).status == Status.INTERRUPTED


@pytest.mark.parametrize("code", [1, 137])
def test_a_job_that_is_being_cancelled_does_not_come_back(
    code: int, submitted: RunFolder, asked: Path, command: Command
) -> None:
    command("squeue", f"echo '7|COMPLETING|0|{NAME}|None|'")
    owned = begin(submitted)
    if code == 1:
        word(owned, Status.FAILED)
        complain(owned, "RuntimeError", "[gloo] Connection closed by peer")
    assert ends(submitted, code) == code
    assert not asked.exists()
    if code == 137:
        assert submitted.state() is None, "what never began has not failed"


def test_progress_between_lost_connections_counts_anew(submitted: RunFolder, asked: Path) -> None:
    for restarts in range(4):
        owned = begin(submitted, restarts)
        submitted.checkpoint.touch()
        os.utime(submitted.checkpoint, (restarts, restarts))
        word(owned, Status.FAILED, attempts=restarts + 1)
        complain(owned, "DistBackendError", "Connection reset by peer")
        ends(submitted, 1, restarts)
        assert state_of(submitted).status == Status.INTERRUPTED


def test_the_end_of_a_job_that_the_run_has_left_touches_nothing(submitted: RunFolder, asked: Path) -> None:
    word(begin(submitted), Status.RUNNING)
    later = submitted.claim("sweep-2:9.0")
    word(later, Status.RUNNING, attempts=2)
    assert ends(submitted, 137) == 137
    assert state_of(submitted).status == Status.RUNNING and submitted.current_owner() == "sweep-2:9.0"
    assert not submitted.failure_file.exists() and not asked.exists()
