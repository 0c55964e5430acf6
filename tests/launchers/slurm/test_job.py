"""Where a run stands, by the ranks' word and Slurm's word on its job together."""

from __future__ import annotations

import pytest

from megdet.errors import UserError
from megdet.launchers.slurm.job import SlurmJob, SlurmJobs
from megdet.launchers.slurm.job_states import JobState, JobStateName
from megdet.launchers.slurm.payload import job_log
from megdet.launchers.slurm.submission import Submission, mark_cancelled
from megdet.runs import causes
from megdet.runs.folder import RunFolder
from megdet.runs.status import Stand, Status
from tests.launchers.conftest import Command
from tests.launchers.slurm.submitted import NAME, begin, submit, word


@pytest.fixture
def run(planned_run: RunFolder) -> RunFolder:
    """Handed over to job 7, which has begun to speak."""
    payload = submit(planned_run)
    job_log(payload.folder, "7").touch()
    return planned_run


def stand(run: RunFolder, known: JobState) -> Stand:
    submission = Submission.read(run)
    assert submission is not None
    return SlurmJob(run, submission, lambda: known).stand()


def status(run: RunFolder, name: JobStateName) -> Status:
    return stand(run, JobState(name, name=NAME)).status


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ("pending", "queued"), ("running", "running"), ("completing", "running"), ("completed", "failed"),
        ("failed", "failed"), ("cancelled", "cancelled"), ("timeout", "interrupted"), ("preempted", "interrupted"),
        ("node_fail", "interrupted"), ("out_of_memory", "failed"), ("gone", "lost"), ("unknown", "queued"),
    ],
)  # fmt: skip
def test_before_the_ranks_say_a_word_the_job_says_it(job: JobStateName, expected: str, run: RunFolder) -> None:
    assert status(run, job) == expected


@pytest.mark.parametrize(
    ("own", "job", "expected"),
    [
        ("running", "running", "running"), ("running", "pending", "requeued"), ("interrupted", "pending", "requeued"),
        ("interrupted", "running", "running"), ("interrupted", "completing", "requeued"),
        ("running", "gone", "lost"), ("running", "failed", "failed"), ("running", "node_fail", "interrupted"),
        ("running", "timeout", "interrupted"), ("running", "unknown", "running"), ("running", "cancelled", "cancelled"),
        ("interrupted", "cancelled", "cancelled"), ("interrupted", "failed", "interrupted"),
        ("interrupted", "gone", "interrupted"), ("failed", "failed", "failed"), ("failed", "gone", "failed"),
        ("finished", "running", "finished"), ("finished", "gone", "finished"), ("diverged", "failed", "diverged"),
    ],
)  # fmt: skip
def test_the_ranks_word_and_the_job_together(own: str, job: JobStateName, expected: str, run: RunFolder) -> None:
    word(begin(run), Status(own))
    assert status(run, job) == expected


def test_the_word_of_an_earlier_job_is_not_taken_for_the_present_ones(planned_run: RunFolder) -> None:
    word(planned_run.owned_by("test"), Status.FAILED, attempts=2)
    job_log(submit(planned_run).folder, "7").touch()
    assert status(planned_run, "pending") == "queued"
    assert status(planned_run, "running") == "running"
    assert status(planned_run, "gone") == "lost"
    assert status(planned_run, "unknown") == "queued"


def test_a_job_of_another_cluster_with_the_same_number_is_not_ours(run: RunFolder, command: Command) -> None:
    word(begin(run), Status.RUNNING)
    command("squeue", "echo '7|RUNNING|0|somebody-elses|None|'")
    assert SlurmJobs().find([run])[run].stand().status == Status.LOST


def test_a_slurm_that_does_not_answer_leaves_the_ranks_word(run: RunFolder, command: Command) -> None:
    [job] = SlurmJobs().find([run]).values()
    assert job.stand().status == Status.QUEUED and "squeue is not installed" in job.stand().why
    word(begin(run), Status.RUNNING)
    assert job.stand().status == Status.RUNNING


def test_one_question_is_asked_and_none_about_results(run: RunFolder, command: Command) -> None:
    command("squeue", f"echo x >> looks; echo '7|RUNNING|0|{NAME}|None|'")
    looks = run.path.parents[1] / "looks"
    jobs = SlurmJobs().find([run])
    assert not looks.exists(), "a log can be read without Slurm"
    assert jobs[run].stand().status == jobs[run].stand().status == Status.RUNNING
    assert looks.read_text() == "x\n"
    word(begin(run), Status.FINISHED)
    assert SlurmJobs().find([run])[run].stand().status == Status.FINISHED
    assert looks.read_text() == "x\n"


def test_a_cancelled_job_is_cancelled_without_accounting_too(run: RunFolder) -> None:
    word(begin(run), Status.INTERRUPTED, reason="asked to stop")
    mark_cancelled(run)
    assert status(run, "gone") == "cancelled"


def test_a_job_that_never_began_and_is_gone_was_cancelled(planned_run: RunFolder) -> None:
    submit(planned_run)
    assert status(planned_run, "gone") == "cancelled"


def test_cancelling_is_noted_only_where_slurm_has_done_it(run: RunFolder, command: Command) -> None:
    [job] = SlurmJobs().find([run]).values()
    with pytest.raises(UserError, match="job 7 was not cancelled: scancel is not installed"):
        job.cancel()
    submission = Submission.read(run)
    assert submission is not None and submission.cancelled is None
    command("scancel", "echo $@ >> cancelled")
    job.cancel()
    submission = Submission.read(run)
    assert submission is not None and submission.cancelled is not None
    assert (run.path.parents[1] / "cancelled").read_text() == "7\n"


def test_why_says_what_slurm_says(run: RunFolder) -> None:
    waiting = stand(run, JobState("pending", reason="QOSMaxGRESPerUser", name=NAME))
    assert waiting.why == "job 7 waits: QOSMaxGRESPerUser"
    ended = stand(run, JobState("failed", exit_code=137, name=NAME))
    assert ended.why == "job 7 ended with exit code 137 and did not say why"


@pytest.mark.parametrize(
    ("known", "own", "cause"),
    [
        (JobState("node_fail"), None, causes.NODE),
        (JobState("timeout"), Status.RUNNING, causes.TIME_LIMIT),
        (JobState("out_of_memory"), Status.RUNNING, causes.HOST_MEMORY),
        (JobState("gone", reason="Slurm does not know the job any more"), Status.RUNNING, causes.LOST),
        (JobState("failed", exit_code=1), Status.RUNNING, causes.ERROR),
    ],
)
def test_how_slurm_says_that_a_job_ended_gives_the_cause(
    known: JobState, own: Status | None, cause: causes.Cause, run: RunFolder
) -> None:
    if own:
        word(begin(run), own)
    submission = Submission.read(run)
    assert submission is not None
    job = SlurmJob(run, submission, lambda: known)
    diagnosis = causes.diagnose(run, job.stand(), known=job.cause())
    assert diagnosis is not None and diagnosis.cause is cause
