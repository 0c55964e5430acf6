"""Every run knows its job, also when a launcher dies at the worst moment."""

from __future__ import annotations

from pathlib import Path

import pytest
from megdet.launchers.ledger import (
    Submission,
    book,
    book_run,
    changes_since_submission,
    mark_cancelled,
    reconcile,
    submitting,
    withdraw,
    write_intent,
)

from megdet.errors import UserError
from megdet.runs.folder import PLAN, RunFolder
from megdet.runs.state import RunState
from megdet.runs.status import Status
from tests.launchers.conftest import PlanFor, make_folder
from tests.runs.folders import owned


@pytest.fixture
def runs(plan_for: PlanFor) -> list[Path]:
    return [make_folder(plan_for(16, 16, seed=seed)) for seed in (0, 1)]


@pytest.fixture
def submission(runs: list[Path]) -> Path:
    """The folder of a submission of two runs, before sbatch."""
    folder = runs[0].parent / ".submissions" / "sweep-1"
    write_intent(folder, runs)
    return folder


def test_booking_tells_each_run_its_element_and_takes_the_token_away(runs: list[Path], submission: Path) -> None:
    token = submission.with_name("sweep-1.intent")
    assert token.exists()
    book(submission, "123")
    assert not token.exists()
    booked = [Submission.read(RunFolder(run)) for run in runs]
    assert [one.job for one in booked if one] == ["123_0", "123_1"]
    assert booked[1] is not None and booked[1].log == str(submission / "123_1.log") and booked[1].name == "sweep-1"


def test_a_rank_that_is_faster_than_the_bookkeeping_books_the_same(runs: list[Path], submission: Path) -> None:
    book_run(submission, 1, array="123")
    by_rank = Submission.read(RunFolder(runs[1]))
    owned(runs[1]).write_state(RunState(Status.RUNNING, attempts=1, started="2026-01-01T00:00:00+00:00"))
    book(submission, "123")
    assert Submission.read(RunFolder(runs[1])) == by_rank and by_rank is not None and by_rank.attempts_before == 0


def test_a_run_that_is_submitted_again_remembers_its_older_jobs(runs: list[Path], submission: Path) -> None:
    book(submission, "123")
    again = submission.with_name("sweep-2")
    owned(runs[0]).write_state(RunState(Status.FAILED, attempts=3, started="2026-01-01T00:00:00+00:00"))
    write_intent(again, runs[:1])
    book(again, "200")
    known = Submission.read(RunFolder(runs[0]))
    assert known is not None and (known.job, known.history, known.attempts_before) == ("200", ("123_0",), 3)


def test_a_launcher_that_died_after_sbatch_leaves_no_unknown_job(runs: list[Path], submission: Path) -> None:
    [said] = reconcile(runs[0].parent, lambda name: ["123_0", "123_1"] if name == "sweep-1" else [])
    assert "noted now" in said
    assert [one.job for one in map(Submission.read, runs) if one] == ["123_0", "123_1"]
    assert reconcile(runs[0].parent, lambda name: pytest.fail("nothing is left to ask about")) == []


def test_a_launcher_that_died_before_sbatch_leaves_nothing(runs: list[Path], submission: Path) -> None:
    [said] = reconcile(runs[0].parent, lambda name: [])
    assert "died before Slurm had its jobs" in said
    assert not submission.exists() and Submission.read(RunFolder(runs[0])) is None
    assert list(submission.parent.glob("*.intent")) == []


def test_jobs_that_slurm_has_forgotten_keep_their_logs(runs: list[Path], submission: Path) -> None:
    (submission / "123_0.log").touch()
    assert reconcile(runs[0].parent, lambda name: []) == []
    assert (submission / "123_0.log").exists() and (submission / "runs.json").exists()
    assert list(submission.parent.glob("*.intent")) == []


def test_a_slurm_that_does_not_answer_leaves_the_tokens_for_the_next_time(runs: list[Path], submission: Path) -> None:
    def silent(name: str) -> list[str]:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        reconcile(runs[0].parent, silent)
    assert submission.with_name("sweep-1.intent").exists()


def test_what_slurm_refused_is_forgotten(runs: list[Path], submission: Path) -> None:
    (submission / "submission.sh").touch()
    withdraw(submission)
    assert list(submission.parent.iterdir()) == []


def test_the_logs_of_forgotten_jobs_stay_and_do_not_stop_the_next_launch(runs: list[Path], submission: Path) -> None:
    (submission / "123_0.log").write_text("what the job said\n")
    withdraw(submission)
    assert [path.name for path in submission.iterdir()] == ["123_0.log"]
    assert not submission.with_name("sweep-1.intent").exists()


def test_two_launchers_do_not_submit_at_once(runs: list[Path]) -> None:
    with submitting(runs[0].parent), pytest.raises(UserError, match="another launcher"), submitting(runs[0].parent):
        pass
    with submitting(runs[0].parent):
        pass


def test_a_plan_that_is_edited_while_queued_is_noticed(runs: list[Path], submission: Path) -> None:
    book(submission, "123")
    assert changes_since_submission(runs[0]) == []
    (runs[0] / PLAN).write_text((runs[0] / PLAN).read_text() + " ")
    assert changes_since_submission(runs[0]) == ["plan"]


def test_code_that_is_edited_while_queued_is_noticed(
    runs: list[Path], submission: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book(submission, "123")
    monkeypatch.setattr("megdet.launchers.ledger.code_sha256", lambda: "other")
    assert changes_since_submission(runs[0]) == ["code"]


def test_a_cancellation_is_remembered(runs: list[Path], submission: Path) -> None:
    mark_cancelled(runs[0])
    assert Submission.read(RunFolder(runs[0])) is None
    book(submission, "123")
    mark_cancelled(runs[0])
    known = Submission.read(RunFolder(runs[0]))
    assert known is not None and known.cancelled is not None and known.job == "123_0"


def test_a_damaged_submission_is_an_error_with_a_way_out(runs: list[Path]) -> None:
    (runs[0] / "submission.json").write_text('{"job": 1}')
    with pytest.raises(UserError, match="move the run folder away"):
        Submission.read(RunFolder(runs[0]))
