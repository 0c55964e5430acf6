"""One classifier says what `megdet why` calls a failure and whether it is started again; errors of code never are."""

from __future__ import annotations

from pathlib import Path

import pytest

from megdet.config.cluster import ClusterSettings
from megdet.config.schema import Config
from megdet.launchers.jobs import Jobs
from megdet.launchers.local.machine import Machine
from megdet.launchers.local.one_run import run_local
from megdet.launchers.slurm.end import end
from megdet.launchers.slurm.job_log import begins
from megdet.launchers.slurm.payload import job_log
from megdet.planning.plan import Plan, make_plan
from megdet.runs import causes
from megdet.runs.causes import Cause, cause_of
from megdet.runs.failure import Failure
from megdet.runs.folder import RunFolder, folder_of
from megdet.runs.status import Status
from tests.launchers.conftest import Command
from tests.launchers.slurm.submitted import NAME, attempt, begin, complain, submit, word
from tests.launchers.stand_in import write_program
from tests.runs.folders import stand_of

ONE_CORE = Machine(gpus=(), cores=1)


@pytest.mark.parametrize(
    ("error", "reason", "cause"),
    [
        ("KeyError", "KeyError: 'timeout_s'", causes.ERROR),
        ("ValueError", "ValueError: NCCL is no optimizer", causes.ERROR),
        ("AttributeError", "AttributeError: 'Net' has no attribute 'connection_reset'", causes.ERROR),
        ("TypeError", "TypeError: connection refused() got an unexpected keyword argument", causes.ERROR),
        ("DistBackendError", "NCCL error: remote process exited or there was a network error", causes.NETWORK),
        ("RuntimeError", "[gloo] Connection closed by peer [127.0.0.1]:1234", causes.NETWORK),
        ("RuntimeError", "Timed out waiting 600000ms for recv operation to complete", causes.NETWORK),
        ("RankDied", "rank 1 was killed by SIGKILL", causes.KILLED),
        ("RankDied", "rank 1 was killed: out of main memory, as the kernel says", causes.HOST_MEMORY),
        ("RankDied", "rank 1 was killed by SIGSEGV", causes.CRASHED),
        ("RankDied", "its ranks never began (exit code 1)", causes.NEVER_BEGAN),
        ("RankDied", "rank 0 ended with exit code 1 and did not say why", causes.ERROR),
    ],
)
def test_what_an_error_is(error: str, reason: str, cause: Cause) -> None:
    assert cause_of(Failure(1, error, reason)) is cause


def test_what_is_retried_is_no_error_of_the_code() -> None:
    retried = {cause.name for cause in causes.IN_ORDER if cause.retried}
    assert retried == {
        "network between ranks (NCCL or gloo)", "node failure", "its ranks never began", "killed from outside",
        "no progress",
    }  # fmt: skip


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(Config(gpus=1, cluster=ClusterSettings(gpus_per_node=1), runs_dir=str(tmp_path / "runs")))


def attempts_of(plan: Plan) -> int:
    state = folder_of(plan).state()
    assert state is not None
    return state.attempts


def test_a_rank_killed_here_is_started_again_and_the_run_ends_well(plan: Plan, tmp_path: Path) -> None:
    body = """
        state("running")
        if run.state().attempts < 3:
            os.kill(os.getpid(), signal.SIGKILL)
        again("finished")
    """
    assert run_local(plan, program=write_program(tmp_path / "rank.py", body), machine=ONE_CORE) == Status.FINISHED
    assert attempts_of(plan) == 3 and folder_of(plan).failure() is None


def test_a_rank_that_is_killed_again_and_again_without_progress_fails(plan: Plan, tmp_path: Path) -> None:
    program = write_program(tmp_path / "rank.py", "state('running'); os.kill(os.getpid(), signal.SIGKILL)")
    assert run_local(plan, program=program, machine=ONE_CORE) == Status.FAILED
    assert attempts_of(plan) == 3, "cluster.max_retries=2"


def test_an_error_of_the_code_is_not_started_again_here(plan: Plan, tmp_path: Path) -> None:
    body = """
        state("running")
        run.write_failure(Failure(0, "KeyError", "KeyError: 'timeout_s'"))
        again("failed", reason="KeyError: 'timeout_s'")
        sys.exit(1)
    """
    assert run_local(plan, program=write_program(tmp_path / "rank.py", body), machine=ONE_CORE) == Status.FAILED
    assert attempts_of(plan) == 1


def test_a_failure_before_the_first_step_keeps_its_reason(
    planned_run: RunFolder, command: Command, tmp_path: Path
) -> None:
    word(planned_run.owned_by("test"), Status.INTERRUPTED, attempts=1)
    submit(planned_run)
    command("squeue", f"echo '7|RUNNING|0|{NAME}|None|'")
    command("scontrol", "echo $@ >> asked")
    owned = begin(planned_run)
    complain(owned, "KeyError", "KeyError: 'timeout_s'")
    word(owned, Status.FAILED, attempts=1, reason="KeyError: 'timeout_s'")  # as a rank does that has not begun
    assert end(attempt(), planned_run, 1, submission=NAME) == 1
    command("squeue", f"echo '7|FAILED|256|{NAME}|None|'")
    stand = stand_of(planned_run)
    assert (stand.status, stand.why) == (Status.FAILED, "KeyError: 'timeout_s'")
    diagnosis = Jobs().look_at([planned_run]).diagnosis(planned_run)
    assert diagnosis is not None and diagnosis.cause is causes.ERROR and diagnosis.rank == 1
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(("code", "retried"), [(1, True), (137, True), (255, True), (127, False)])
def test_ranks_that_never_began_are_started_again(
    code: int, retried: bool, planned_run: RunFolder, command: Command, tmp_path: Path
) -> None:
    submit(planned_run)
    command("squeue", f"echo '7|RUNNING|0|{NAME}|None|'")
    command("scontrol", "echo $@ >> asked")
    assert end(attempt(), planned_run, code, submission=NAME) == code
    assert (tmp_path / "asked").exists() == retried
    state = planned_run.state()
    assert state is not None and state.status == (Status.INTERRUPTED if retried else Status.FAILED)


def test_of_ranks_that_ended_together_srun_says_who_was_first(
    planned_run: RunFolder, command: Command, tmp_path: Path
) -> None:
    submission = submit(planned_run)
    command("squeue", f"echo '7|RUNNING|0|{NAME}|None|'")
    command("scontrol", "echo $@ >> asked")
    begin(planned_run)
    word(planned_run.owned_by(attempt().name(NAME)), Status.RUNNING)
    job_log(submission.folder, "7").write_text(
        "srun: error: n1: task 0: Killed\n"
        f"{begins(attempt().name(NAME))}\n"
        "srun: error: n1: task 1: Exited with exit code 9\n"
        "srun: error: n1: task 0: Killed\n"
    )
    assert end(attempt(), planned_run, 137, submission=NAME) == 137
    failure = planned_run.failure()
    assert failure is not None
    assert (failure.rank, failure.reason) == (1, "rank 1 ended with exit code 9 and did not say why")
    assert not (tmp_path / "asked").exists()


def test_memory_that_slurm_says_was_too_little_is_not_tried_again(
    planned_run: RunFolder, command: Command, tmp_path: Path
) -> None:
    submission = submit(planned_run)
    command("squeue", f"echo '7|RUNNING|0|{NAME}|None|'")
    command("scontrol", "echo $@ >> asked")
    word(begin(planned_run), Status.RUNNING)
    job_log(submission.folder, "7").write_text("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.\n")
    assert end(attempt(), planned_run, 137, submission=NAME) == 137
    command("squeue", f"echo '7|FAILED|35072|{NAME}|None|'")
    diagnosis = Jobs().look_at([planned_run]).diagnosis(planned_run)
    assert diagnosis is not None and diagnosis.cause is causes.HOST_MEMORY
    assert not (tmp_path / "asked").exists()


def test_a_failure_is_not_hidden_by_a_rank_that_was_just_saving(plan: Plan, tmp_path: Path) -> None:
    body = """
        run.write_failure(Failure(1, "ImportError", "ImportError: no such package"))
        state("running")
        sys.exit(1)
    """
    assert run_local(plan, program=write_program(tmp_path / "rank.py", body), machine=ONE_CORE) == Status.FAILED
    assert stand_of(folder_of(plan)).why == "ImportError: no such package" and attempts_of(plan) == 1


def test_a_failure_in_a_job_is_not_hidden_by_a_rank_that_was_just_saving(
    planned_run: RunFolder, command: Command
) -> None:
    submit(planned_run)
    owned = begin(planned_run)
    complain(owned, "ImportError", "ImportError: no such package")
    word(owned, Status.RUNNING)
    assert end(attempt(), planned_run, 1, submission=NAME) == 1
    state = planned_run.state()
    assert state is not None
    assert (state.status, state.reason, state.attempts) == (Status.FAILED, "ImportError: no such package", 1)
