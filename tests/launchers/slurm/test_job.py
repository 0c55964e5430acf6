"""Where a run stands, by its own word, its lock and its job together."""

from __future__ import annotations

from pathlib import Path

import pytest
from megdet.launchers.job_states import JobState, JobStateName
from megdet.launchers.ledger import book, mark_cancelled, write_intent
from megdet.launchers.run_status import run_status

from megdet.runs.folder import RunFolder
from megdet.runs.state import RunState
from megdet.runs.status import Status
from tests.runs.folders import owned

NAME = "sweep-1"


def word(run: Path, state: Status, *, attempts: int = 1, reason: str | None = None) -> None:
    owned(run).write_state(
        RunState(Status(state), attempts=attempts, started="2026-01-01T00:00:00+00:00", reason=reason)
    )


def submit(run: Path) -> None:
    folder = run.parent / ".submissions" / NAME
    write_intent(folder, [run])
    (folder / "7.log").touch()
    book(folder, "7")


def status(run: Path, job: JobStateName | None, *, name: str = NAME, **more: object) -> str:
    return run_status(RunFolder(run), None if job is None else {"7": JobState(job, name=name, **more)}).status  # type: ignore[arg-type]


def test_without_a_job_the_runs_own_word_counts(planned_run: Path) -> None:
    assert run_status(RunFolder(planned_run), {}).status == "new"
    word(planned_run, "running")
    assert run_status(RunFolder(planned_run), {}).status == "interrupted", "nobody holds its lock"
    word(planned_run, "failed", reason="bad")
    assert (run_status(RunFolder(planned_run), {}).status, run_status(RunFolder(planned_run), {}).why) == (
        "failed",
        "bad",
    )


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ("pending", "queued"), ("running", "running"), ("completing", "running"), ("completed", "failed"),
        ("failed", "failed"), ("cancelled", "cancelled"), ("timeout", "interrupted"), ("preempted", "interrupted"),
        ("node_fail", "interrupted"), ("out_of_memory", "failed"), ("gone", "lost"), ("unknown", "queued"),
    ],
)  # fmt: skip
def test_before_the_ranks_say_a_word_the_job_says_it(job: JobStateName, expected: str, planned_run: Path) -> None:
    submit(planned_run)
    assert status(planned_run, job) == expected


@pytest.mark.parametrize(
    ("own", "job", "expected"),
    [
        ("running", "running", "running"), ("running", "pending", "requeued"), ("interrupted", "pending", "requeued"),
        ("interrupted", "running", "running"), ("interrupted", "completing", "interrupted"),
        ("running", "gone", "lost"), ("running", "failed", "failed"), ("running", "node_fail", "interrupted"),
        ("running", "timeout", "interrupted"), ("running", "unknown", "running"), ("running", "cancelled", "cancelled"),
        ("interrupted", "cancelled", "cancelled"), ("interrupted", "failed", "interrupted"),
        ("interrupted", "gone", "interrupted"), ("failed", "failed", "failed"), ("failed", "gone", "failed"),
        ("finished", "running", "finished"), ("finished", "gone", "finished"), ("diverged", "failed", "diverged"),
    ],
)  # fmt: skip
def test_the_ranks_word_and_the_job_together(own: Status, job: JobStateName, expected: str, planned_run: Path) -> None:
    submit(planned_run)
    word(planned_run, own)
    assert status(planned_run, job) == expected


def test_the_word_of_an_earlier_job_is_not_taken_for_the_present_ones(planned_run: Path) -> None:
    word(planned_run, "failed", attempts=2)
    submit(planned_run)
    assert status(planned_run, "pending") == "queued"
    assert status(planned_run, "running") == "running"
    assert status(planned_run, "gone") == "lost"
    assert status(planned_run, "unknown") == "queued"


def test_a_job_of_another_cluster_with_the_same_number_is_not_ours(planned_run: Path) -> None:
    submit(planned_run)
    word(planned_run, "running")
    assert status(planned_run, "running", name="somebody-elses") == "lost"


def test_nobody_asked_slurm(planned_run: Path) -> None:
    submit(planned_run)
    assert status(planned_run, None) == "queued"
    word(planned_run, "running")
    assert status(planned_run, None) == "running"


def test_a_cancelled_job_is_cancelled_without_accounting_too(planned_run: Path) -> None:
    submit(planned_run)
    word(planned_run, "interrupted", reason="asked to stop")
    mark_cancelled(planned_run)
    assert status(planned_run, "gone") == "cancelled"


def test_a_job_that_never_began_and_is_gone_was_cancelled(planned_run: Path) -> None:
    submit(planned_run)
    (planned_run.parent / ".submissions" / NAME / "7.log").unlink()
    assert status(planned_run, "gone") == "cancelled"


def test_why_says_what_slurm_says(planned_run: Path) -> None:
    submit(planned_run)
    waiting = run_status(planned_run, {"7": JobState("pending", reason="QOSMaxGRESPerUser", name=NAME)})
    assert waiting.why == "job 7 waits: QOSMaxGRESPerUser"
    ended = run_status(planned_run, {"7": JobState("failed", exit_code=137, name=NAME)})
    assert ended.why == "job 7 ended with exit code 137 and did not say why"
