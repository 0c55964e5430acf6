"""How a task of submitit's becomes a rank: it claims the run's folder, finds the others, and is told who it is."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from megdet.launchers.rank import rank_environment
from megdet.launchers.slurm.meeting import PORTS
from megdet.launchers.slurm.payload import Payload
from megdet.launchers.slurm.rank import Rank
from megdet.launchers.slurm.submission import Submission
from megdet.runs.folder import RunFolder
from megdet.runs.status import Status
from tests.launchers.slurm.submitted import NAME, attempt, begin, submit, word

PROGRAM = (
    'import os, sys; print(*(os.environ[k] for k in ("MASTER_ADDR", "MASTER_PORT", "MEGDET_ATTEMPT")), sys.argv[1])'
)
"""Instead of `megdet.run`: says what it was told."""
TASK = "import sys; from megdet.launchers.slurm.rank import Rank; Rank()(sys.argv[1])"


@pytest.fixture
def payload(planned_run: RunFolder) -> Payload:
    """Of a run that was handed over to job 7."""
    return submit(planned_run, program=("-c", PROGRAM))


def start_rank(payload: Payload, rank: int, *, restarts: int = 0, nodes: int = 2) -> subprocess.Popen[str]:
    """The task of a rank, as submitit calls it in that start of job 7."""
    environment = {
        **os.environ, "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restarts), "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank), "SLURM_NTASKS": "2", "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURMD_NODENAME": "localhost", "SUBMITIT_EXECUTOR": "slurm",
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", TASK, str(payload.file)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def said_by(rank: subprocess.Popen[str]) -> str:
    out, error = rank.communicate(timeout=60)
    assert rank.returncode == 0, error
    return out


def test_a_rank_is_told_who_it_is_and_keeps_the_gpus_that_slurm_gave_it() -> None:
    slurm = {"CUDA_VISIBLE_DEVICES": "2,5", "RANK": "77", "MASTER_PORT": "1", "MALLOC_TOP_PAD_": "1"}
    told = rank_environment(
        slurm, attempt="7.0", rank=5, local_rank=1, ranks=8, ranks_per_node=4, address="node1", port=23_456, threads=3
    )
    expected = {
        "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "node1",
        "MASTER_PORT": "23456", "CUDA_VISIBLE_DEVICES": "2,5", "OMP_NUM_THREADS": "3", "MALLOC_TOP_PAD_": "1",
        "MEGDET_ATTEMPT": "7.0",
    }  # fmt: skip
    assert {key: told[key] for key in expected} == expected


def test_ranks_meet_where_rank_0_of_this_very_attempt_is(payload: Payload) -> None:
    [run] = payload.runs
    begin(run)  # an earlier start of the job, whose ranks met elsewhere
    other = start_rank(payload, 1, restarts=1)
    first = said_by(start_rank(payload, 0, restarts=1))
    said_by(other)
    assert first == run.log(1).read_text(), "the same place and the same program"
    address, port, name, plan = first.split()
    assert address == "localhost" and int(port) in PORTS and plan == str(run.plan)
    assert name == run.current_owner() == attempt(1).name(NAME)


def test_ranks_of_one_node_meet_where_no_other_machine_can_reach_them(payload: Payload) -> None:
    program = """
import ipaddress, os, psutil
from megdet.training.distributed import Ranks
with Ranks.from_environment():
    import torch, torch.distributed as dist
    dist.all_reduce(torch.ones(1))
    open_to = {c.laddr.ip for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN}
    dist.barrier()
print(os.environ["RANK"], all(ipaddress.ip_address(ip).is_loopback for ip in open_to), len(open_to))
"""
    [run] = payload.runs
    replace(payload, program=("-c", program)).write()
    other = start_rank(payload, 1, nodes=1)
    assert said_by(start_rank(payload, 0, nodes=1)).split()[:2] == ["0", "True"]
    said_by(other)
    assert run.log(1).read_text().split()[:2] == ["1", "True"]


def test_a_port_that_is_taken_is_passed_over(payload: Payload) -> None:
    port = int(said_by(start_rank(payload, 0)).split()[1])
    with socket.socket() as taken:
        taken.bind(("", port))
        taken.listen()
        assert int(said_by(start_rank(payload, 0)).split()[1]) == port + 1


def test_rank_0_notes_the_job_where_the_launcher_did_not_live_to_do_it(payload: Payload) -> None:
    [run] = payload.runs
    run.submission_file.unlink()
    said_by(start_rank(payload, 0))
    submission = Submission.read(run)
    assert submission is not None and (submission.job, submission.name) == ("7", NAME)


@pytest.mark.parametrize("owner", ["sweep-2", "sweep-2:9.0", "local-host-1-ab", f"{NAME}:7.2", f"{NAME}:8.0"])
def test_a_job_that_starts_after_its_run_went_elsewhere_touches_nothing(owner: str, payload: Payload) -> None:
    """Handed over again, run on some machine, a later start of the job, another element: it is theirs now."""
    [run] = payload.runs
    owned = run.claim(owner)
    word(owned, Status.RUNNING)
    owned.note_submission("slurm", {"job": "9"})
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    rank = start_rank(payload, 0, restarts=1)
    assert owner in rank.communicate(timeout=60)[1] and rank.returncode == 1
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


def test_a_job_that_is_lost_again_and_again_is_given_up(payload: Payload) -> None:
    [run] = payload.runs
    for restarts in (1, 2):
        word(begin(run, restarts - 1), Status.RUNNING)
        said_by(start_rank(payload, 0, restarts=restarts))
    word(run.owned_by(attempt(2).name(NAME)), Status.RUNNING)
    rank = start_rank(payload, 0, restarts=3)
    rank.communicate(timeout=60)
    state, submission = run.state(), Submission.read(run)
    assert rank.returncode == 1
    assert state is not None and state.status == Status.FAILED and "without any progress" in str(state.reason)
    assert submission is not None and submission.retries == 2


def test_submitit_may_put_a_rank_back_that_has_not_begun(payload: Payload) -> None:
    """What its users know as a checkpoint: the same callable with the same path."""
    again = Rank().checkpoint(str(payload.file))
    assert isinstance(again.function, Rank) and again.args == (str(payload.file),)


def test_a_signal_that_comes_before_the_payload_listens_is_kept_for_it() -> None:
    """As tasks do it: blocked before the payload is loaded, seen when it has handlers."""
    program = """
import os, signal, sys
from megdet.launchers.slurm.rank import HELD_SIGNALS
signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
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
