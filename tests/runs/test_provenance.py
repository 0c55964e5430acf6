"""Which data a run began with, and that it goes on with no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from megdet.errors import UserError
from megdet.runs.journal import Journal
from megdet.runs.provenance import check_same_data, data_recorded
from megdet.runs.state import RunState
from megdet.runs.status import Status
from tests.runs.folders import owned

FIRST, OTHER = "1" * 12, "2" * 12


def test_a_run_that_has_made_steps_goes_on_with_its_data_alone(tmp_path: Path) -> None:
    folder = owned(tmp_path / "run")
    check_same_data(folder, FIRST)
    with Journal(folder) as journal:
        journal.event("started", step=0, data_sha256=FIRST)
        check_same_data(folder, OTHER)  # no step is made yet
        journal.step(1, epoch=0.1)
        journal.event("resumed", step=1, data_sha256=OTHER)
    assert data_recorded(folder) == FIRST
    check_same_data(folder, OTHER)
    folder.checkpoint.touch()
    check_same_data(folder, FIRST)
    with pytest.raises(
        UserError, match=rf"data_sha256 {FIRST}, and the data there is now has {OTHER}\. .*on_existing=force"
    ):
        check_same_data(folder, OTHER)


def test_a_result_without_its_checkpoint_is_still_of_its_data(tmp_path: Path) -> None:
    folder = owned(tmp_path / "run")
    with Journal(folder) as journal:
        journal.event("started", step=0, data_sha256=FIRST)
    folder.write_state(RunState(Status.FINISHED, attempts=1, started="2020-01-01T00:00:00+00:00", step=8))
    with pytest.raises(UserError, match="was trained on other data"):
        check_same_data(folder, OTHER)


def test_an_attempt_that_made_no_step_does_not_count(tmp_path: Path) -> None:
    folder = owned(tmp_path / "run")
    with Journal(folder) as journal:
        journal.event("started", step=0, data_sha256=OTHER)
        journal.event("failed", step=0)
        journal.event("started", step=0, data_sha256=FIRST)
        journal.event("data_repaired", step=0, what="a")
        journal.epoch(1, step=4)
    folder.checkpoint.touch()
    check_same_data(folder, FIRST)


@pytest.mark.parametrize("text", ["", "{", '{"kind": "event"}\n', '{"kind": "event", "event": "started", "step": 0}\n'])
def test_a_journal_that_does_not_say_is_no_obstacle(tmp_path: Path, text: str) -> None:
    folder = owned(tmp_path / "run")
    folder.checkpoint.touch()
    folder.journal.write_text(text)
    check_same_data(folder, FIRST)
