"""What a job does around its ranks: they find each other, and an end is said that they could not say."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from megdet.launchers.ledger import Submission, book, write_intent
from megdet.launchers.requeue import SlurmJob, is_in_own_job, requeue_own_job
from megdet.launchers.slurm_task import PORTS, end, rank_environment

from megdet.runs.folder import MEETING, RunFolder
from megdet.runs.state import RunState
from megdet.runs.status import Status
from tests.launchers.conftest import Command
from tests.runs.folders import owned

JOB = SlurmJob(id="7", array="7", restarts=0)
RUNNING = "echo '7|RUNNING|0|sweep-1|None|'"


@pytest.fixture
def submitted(planned_run: Path) -> Path:
    """The folder of a run whose job has begun: rank 0 has said where it is."""
    folder = planned_run.parent / ".submissions" / "sweep-1"
    write_intent(folder, [planned_run])
    book(folder, "7")
    (planned_run / MEETING).write_text(json.dumps({"attempt": "7.0", "address": "n1", "port": 1, "before": 0}))
    return planned_run


def word(run: Path, state: Status, *, attempts: int = 1) -> None:
    owned(run).write_state(RunState(Status(state), attempts=attempts, started="2026-01-01T00:00:00+00:00"))


def failure(run: Path, error: str, reason: str) -> None:
    (run / "failure.json").write_text(json.dumps({"rank": 1, "error": error, "reason": reason}))


def state_of(run: Path) -> RunState:
    state = RunFolder(run).state()
    assert state is not None
    return state


@pytest.mark.parametrize(
    ("environment", "job"),
    [
        ({"SLURM_JOB_ID": "9"}, SlurmJob("9", "9", 0)),
        (
            {
                "SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "3", "SLURM_RESTART_COUNT": "2",
            },
            SlurmJob("9_3", "9", 2),
        ),
        ({}, None),
    ],
)  # fmt: skip
def test_a_process_knows_the_job_that_it_is_part_of(environment: dict[str, str], job: SlurmJob | None) -> None:
    assert SlurmJob.from_environment(environment) == job


def test_a_rank_is_told_who_it_is_and_keeps_the_gpus_that_slurm_gave_it() -> None:
    slurm = {
        "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8", "SLURM_NNODES": "2", "SLURM_CPUS_PER_TASK": "3",
        "CUDA_VISIBLE_DEVICES": "2,5", "RANK": "77", "MASTER_PORT": "1",
    }  # fmt: skip
    told = rank_environment(slurm, address="node1", port=23_456)
    expected = {
        "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "node1",
        "MASTER_PORT": "23456", "CUDA_VISIBLE_DEVICES": "2,5", "OMP_NUM_THREADS": "3",
    }  # fmt: skip
    assert {key: told[key] for key in expected} == expected


@pytest.mark.parametrize("state", ["finished", "diverged"])
def test_a_result_is_a_job_that_completed(state: Status, submitted: Path) -> None:
    word(submitted, state)
    assert end(JOB, submitted, 0) == 0


def test_an_interrupted_run_stays_so_and_its_job_did_not_complete(submitted: Path) -> None:
    word(submitted, "interrupted")
    assert end(JOB, submitted, 143) == 3
    assert state_of(submitted).status == "interrupted" and not (submitted / "failure.json").exists()


def test_an_error_of_the_code_is_left_as_it_was_said_and_never_retried(submitted: Path, command: Command) -> None:
    command("scontrol", "echo $@ >> asked")
    word(submitted, "failed")
    failure(submitted, "ValueError", "ValueError: no such thing")
    assert end(JOB, submitted, 1) == 1
    assert not (submitted.parents[1] / "asked").exists()
    assert json.loads((submitted / "failure.json").read_text())["error"] == "ValueError"


def test_a_killed_rank_is_the_cause_though_others_complained_first(submitted: Path, command: Command) -> None:
    word(submitted, "failed")
    failure(submitted, "RuntimeError", "RuntimeError: [gloo] Connection closed by peer [127.0.0.1]:1234")
    assert end(JOB, submitted, 137) == 137
    assert "SIGKILL" in str(state_of(submitted).reason)
    assert "SIGKILL" in json.loads((submitted / "failure.json").read_text())["reason"]


def test_ranks_that_die_without_a_word_have_failed(submitted: Path) -> None:
    word(submitted, "finished", attempts=1)
    (submitted / MEETING).write_text(json.dumps({"attempt": "7.0", "address": "n1", "port": 1, "before": 1}))
    assert end(JOB, submitted, 1) == 1, "the finished attempt was an earlier one"
    assert (state_of(submitted).status, state_of(submitted).attempts) == ("failed", 2)
    assert end(replace(JOB, restarts=1), submitted, 0) == 1, "nobody said that it finished"


def test_a_lost_connection_is_retried_and_only_so_often(submitted: Path, command: Command) -> None:
    command("squeue", RUNNING)
    command("scontrol", "echo $@ >> asked")
    asked = submitted.parents[1] / "asked"
    for attempt in range(4):
        word(submitted, "failed", attempts=attempt + 1)
        failure(submitted, "DistBackendError", "NCCL error: remote process exited or there was a network error")
        (submitted / MEETING).write_text(json.dumps({"attempt": f"7.{attempt}", "before": attempt}))
        assert end(replace(JOB, restarts=attempt), submitted, 1) == 1
        expected = "interrupted" if attempt < 2 else "failed"
        assert state_of(submitted).status == expected
    assert asked.read_text() == "requeue 7\n" * 2


def test_ranks_that_slurm_could_not_start_are_started_again(submitted: Path, command: Command) -> None:
    command("squeue", RUNNING)
    command("scontrol", "echo $@ >> asked")
    assert end(JOB, submitted, 137) == 137
    assert (submitted.parents[1] / "asked").read_text() == "requeue 7\n"
    assert state_of(submitted).status == "interrupted"


@pytest.mark.parametrize("code", [1, 137])
def test_a_job_that_is_being_cancelled_does_not_come_back(code: int, submitted: Path, command: Command) -> None:
    command("squeue", "echo '7|COMPLETING|0|sweep-1|None|'")
    command("scontrol", "echo $@ >> asked")
    if code == 1:
        word(submitted, "failed")
        failure(submitted, "RuntimeError", "[gloo] Connection closed by peer")
    assert end(JOB, submitted, code) == code
    assert not (submitted.parents[1] / "asked").exists()


def test_progress_between_lost_connections_counts_anew(submitted: Path, command: Command) -> None:
    command("squeue", RUNNING)
    command("scontrol", "exit 0")
    for attempt in range(4):
        checkpoint = submitted / "checkpoint.pt"
        checkpoint.touch()
        os.utime(checkpoint, (attempt, attempt))
        word(submitted, "failed", attempts=attempt + 1)
        failure(submitted, "DistBackendError", "Connection reset by peer")
        (submitted / MEETING).write_text(json.dumps({"attempt": f"7.{attempt}", "before": attempt}))
        end(replace(JOB, restarts=attempt), submitted, 1)
        assert state_of(submitted).status == "interrupted"


def test_only_the_job_that_was_submitted_for_a_run_is_requeued_by_it(
    submitted: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("scontrol", "echo $@ >> asked")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert not requeue_own_job(submitted), "no job at all"
    monkeypatch.setenv("SLURM_JOB_ID", "99")
    assert not is_in_own_job(submitted) and not requeue_own_job(submitted), "somebody's shell in a job"
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert requeue_own_job(submitted)
    assert (submitted.parents[1] / "asked").read_text() == "requeue 7\n"
    command("scontrol", "echo 'Requested operation is presently disabled' >&2; exit 1")
    assert not requeue_own_job(submitted)


STAND_IN = """
import os, sys
from megdet.launchers import slurm_task
def become(path, words, environment):
    print(environment["MASTER_ADDR"], environment["MASTER_PORT"], *words[1:], flush=True)
    os._exit(0)
os.execve = become
sys.exit(slurm_task.main(sys.argv[1:]))
"""


def start_rank(run: Path, rank: int, *, restarts: int = 0) -> subprocess.Popen[str]:
    """The task of a rank up to where it becomes `megdet.run`, which it only prints."""
    environment = {
        **os.environ, "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restarts), "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank), "SLURM_NTASKS": "2", "SLURM_NNODES": "1", "SLURMD_NODENAME": "localhost",
    }  # fmt: skip
    runs = run.parent / ".submissions" / "sweep-1" / "runs.json"
    return subprocess.Popen(
        [sys.executable, "-c", STAND_IN, "rank", str(runs)], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_ranks_meet_where_rank_0_of_this_very_attempt_is(submitted: Path) -> None:
    (submitted / MEETING).write_text(json.dumps({"attempt": "7.0", "address": "old", "port": 1, "before": 0}))
    other = start_rank(submitted, 1, restarts=1)
    first, _ = start_rank(submitted, 0, restarts=1).communicate(timeout=60)
    other.communicate(timeout=60)
    said = (submitted / "log-rank1.txt").read_text()
    assert first == said, "the same place and the same payload"
    address, port, *payload = first.split()
    assert address == "localhost" and int(port) in PORTS
    assert payload == ["-m", "megdet.run", str(submitted / "plan.json")]


def test_a_port_that_is_taken_is_passed_over(submitted: Path) -> None:
    port = int(start_rank(submitted, 0).communicate(timeout=60)[0].split()[1])
    with socket.socket() as taken:
        taken.bind(("", port))
        taken.listen()
        assert int(start_rank(submitted, 0).communicate(timeout=60)[0].split()[1]) == port + 1


def test_a_job_that_is_lost_again_and_again_is_given_up(submitted: Path) -> None:
    for restarts in (1, 2):
        word(submitted, "running")
        rank = start_rank(submitted, 0, restarts=restarts)
        rank.communicate(timeout=60)
        assert rank.returncode == 0
    word(submitted, "running")
    rank = start_rank(submitted, 0, restarts=3)
    rank.communicate(timeout=60)
    assert rank.returncode == 1
    assert "without any progress" in str(state_of(submitted).reason)
    known = Submission.read(RunFolder(submitted))
    assert known is not None and known.retries == 2


def test_a_signal_that_comes_before_the_payload_listens_is_kept_for_it() -> None:
    """As tasks do it: blocked before the payload is loaded, seen when it has handlers."""
    program = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR2, signal.SIGTERM))
os.kill(os.getpid(), signal.SIGUSR2)
from megdet.training.stop_signals import StopSignals
stop = StopSignals()
print(stop.requested(), stop.requeue_wanted())
os.kill(os.getpid(), signal.SIGTERM)
print("still here")
stop.ignore_no_more()
os.kill(os.getpid(), signal.SIGTERM)
print("gone")
"""
    done = subprocess.run([sys.executable, "-uc", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["True True", "still here"]
    assert done.returncode == -signal.SIGTERM
