"""Where runs of this machine stand, and how they are cancelled."""

from __future__ import annotations

import json
import os
import signal
import socket

import pytest

from megdet.errors import UserError
from megdet.launchers.jobs import job_of
from megdet.launchers.local.job import LocalJob
from megdet.launchers.local.lock import locked
from megdet.runs.folder import RunFolder
from megdet.runs.state import RunState
from megdet.runs.status import Stand, Status
from tests.runs.folders import stand_of


def word(run: RunFolder, status: Status, reason: str | None = None) -> None:
    run.owned_by("test").write_state(RunState(status, 1, started="2026-01-01T00:00:00+00:00", reason=reason))


def test_without_a_launcher_the_run_s_own_word_counts(planned_run: RunFolder) -> None:
    assert stand_of(planned_run) == Stand(Status.NEW) and job_of(planned_run) is None
    word(planned_run, Status.RUNNING)
    assert stand_of(planned_run) == Stand(Status.INTERRUPTED, "its launcher is gone"), "nobody holds its lock"
    word(planned_run, Status.FAILED, "bad")
    assert stand_of(planned_run) == Stand(Status.FAILED, "bad")


def test_a_run_whose_lock_is_held_is_running_unless_it_has_its_result(planned_run: RunFolder) -> None:
    with locked(planned_run, patience_s=0):
        assert stand_of(planned_run) == Stand(Status.RUNNING, "on this machine")
        word(planned_run, Status.FAILED, "an earlier attempt")
        assert stand_of(planned_run).status == Status.RUNNING
        word(planned_run, Status.FINISHED)
        assert stand_of(planned_run).status == Status.FINISHED


def test_cancelling_signals_the_launcher_that_holds_the_lock(planned_run: RunFolder) -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        with locked(planned_run, patience_s=0):
            LocalJob(planned_run).cancel()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [signal.SIGTERM]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"host": "elsewhere", "pid": os.getpid()}, "it runs on elsewhere; cancel it there"),
        ({"host": socket.gethostname(), "pid": 2**22 + 1}, "which process started it is not known"),
        (None, "which process started it is not known"),
    ],
)
def test_no_other_process_is_signalled(written: dict[str, object] | None, said: str, planned_run: RunFolder) -> None:
    """A lock may be held on another machine, or by ranks that have outlived their launcher."""
    with locked(planned_run, patience_s=0):
        planned_run.lock.write_text("" if written is None else json.dumps(written))
        with pytest.raises(UserError, match=said):
            LocalJob(planned_run).cancel()
