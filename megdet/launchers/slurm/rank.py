"""What a job runs on its nodes. `rank RUNS`: one task per GPU, becomes `megdet.run` on the frozen plan, told who it is
by Slurm's environment. `end RUNS CODE`: after the ranks, says what became of the run where they could not.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from megdet.errors import ExitCode
from megdet.launchers.client import SlurmError, call
from megdet.launchers.job_states import job_states
from megdet.launchers.ledger import Handed, Submission, book_run
from megdet.launchers.processes import NO_TRIM
from megdet.launchers.requeue import SlurmJob
from megdet.runs.failure import Failure
from megdet.runs.files import replace_file
from megdet.runs.folder import ATTEMPT, RunFolder
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.runs.times import now

MEETING_TIMEOUT_S = 300.0
PORTS = range(20_000, 32_000)
"""Below the ports that systems hand out by themselves, so that the one chosen stays free until torch listens."""

_LOST_CONNECTION = re.compile(
    r"connection (closed|reset|refused|timed out)|timed? ?out|broken pipe|NCCL|socketStartConnect|DistNetworkError|"
    r"DistBackendError|DistStoreError|failed to connect|unhandled system error",
    re.IGNORECASE,
)


def main(words: list[str]) -> int:
    """Does not return for a rank."""
    part, path = words[0], Path(words[1])
    job = SlurmJob.from_environment(os.environ)
    assert job is not None, "only Slurm starts this"
    handed = Handed.read(path)
    number = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
    folder = handed.runs[number]
    if part == "rank":
        become_rank(job, folder, submission=path.parent, number=number)
    return end(job, folder, int(words[2]))


def become_rank(job: SlurmJob, folder: RunFolder, *, submission: Path, number: int) -> None:
    """Turn into the payload: the same program that the local launcher starts."""
    # Kept for the payload, which takes seconds to load and then listens to them.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR2, signal.SIGTERM))
    rank = int(os.environ["SLURM_PROCID"])
    if rank == 0:
        book_run(submission, number, array=job.array)
        if job.restarts and _lost_its_job(folder) and not _count_retry(folder):
            _settle_as_failed(
                folder, job, _next_attempt(folder), "its job was lost again and again without any progress"
            )
            sys.exit(1)
        folder.claim(job.attempt).forget_failure()
        address, port = _meet_here(folder, job.attempt)
    else:
        address, port = _meet_there(folder, job.attempt)
        log = os.open(folder.log(rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
    environment = rank_environment(os.environ, address=address, port=port) | {ATTEMPT: job.attempt}
    os.execve(sys.executable, [sys.executable, "-m", "megdet.run", str(folder.plan)], environment)


def rank_environment(slurm: Mapping[str, str], *, address: str, port: int) -> dict[str, str]:
    """What a rank finds in its environment. CUDA_VISIBLE_DEVICES stays as Slurm sets it."""
    ranks, nodes = int(slurm["SLURM_NTASKS"]), int(slurm["SLURM_NNODES"])
    return {
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": slurm.get("SLURM_CPUS_PER_TASK", "1"),
        **NO_TRIM,
        **slurm,
        "RANK": slurm["SLURM_PROCID"],
        "LOCAL_RANK": slurm["SLURM_LOCALID"],
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks // nodes),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
    }


def _meet_here(folder: RunFolder, attempt: str) -> tuple[str, int]:
    """Rank 0 finds a free port of its host and tells the others, through the folder that all of them see."""
    address, port = _own_address(), _free_port(attempt)
    before = folder.state()
    meeting = {"attempt": attempt, "address": address, "port": port, "before": before.attempts if before else 0}
    replace_file(folder.meeting, json.dumps(meeting) + "\n")
    return address, port


def _meet_there(folder: RunFolder, attempt: str) -> tuple[str, int]:
    """What rank 0 of this very attempt wrote; an earlier attempt's place is not taken for it."""
    until = time.monotonic() + MEETING_TIMEOUT_S
    while time.monotonic() < until:
        meeting = _meeting(folder)
        if meeting.get("attempt") == attempt:
            return meeting["address"], meeting["port"]
        time.sleep(0.2)
    sys.exit(f"{folder.meeting}: rank 0 did not say where it is; is the folder on a file system that all nodes share?")


def _meeting(folder: RunFolder) -> dict[str, Any]:
    # Listing the folder makes a network file system look again.
    if folder.meeting.name not in os.listdir(folder.path):
        return {}
    meeting: dict[str, Any] = json.loads((folder.meeting).read_text())
    return meeting


def _own_address() -> str:
    """The name of this node that the others can resolve."""
    for name in (os.environ.get("SLURMD_NODENAME"), socket.gethostname()):
        try:
            if name and socket.getaddrinfo(name, None):
                return name
        except OSError:
            continue
    return "127.0.0.1"


def _free_port(attempt: str) -> int:
    """Different attempts start looking in different places, so that jobs that share a host do not meet."""
    first = zlib.crc32(attempt.encode())
    for step in range(len(PORTS)):
        port = PORTS[(first + step) % len(PORTS)]
        with socket.socket() as listener:
            try:
                listener.bind(("", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port from {PORTS.start} to {PORTS.stop} on {socket.gethostname()}")


def end(job: SlurmJob, folder: RunFolder, code: int) -> int:
    """Settle the run's state after its ranks ended with `code` (the highest of theirs); the job's exit code."""
    meeting = _meeting(folder)
    state = folder.state()
    if meeting.get("attempt") != job.attempt or (state and state.attempts <= meeting["before"]):
        state = None  # an earlier attempt's
    if state and state.status.is_result and code == 0:
        return 0
    if state and state.status == Status.INTERRUPTED:
        return ExitCode.INTERRUPTED
    code = code or 1
    failure = folder.failure()
    lost = failure is not None and _is_lost_connection(failure)
    if failure and lost and code == 1 and _requeued(job, folder, state, failure.reason):
        return code
    if state is None and failure is None and code > 128 and _requeued(job, folder, state, "its ranks never began"):
        return code
    if failure is None or (lost and code > 128):
        # The ranks that were left only lost their connection to the one that was killed.
        _settle_as_failed(folder, job, state or _next_attempt(folder), _reason(code))
    return code


def _requeued(job: SlurmJob, folder: RunFolder, state: RunState | None, reason: str) -> bool:
    """The network failed, not the code: once more, from the last checkpoint, up to cluster.max_retries times."""
    # A job that is being cancelled must not come back.
    if job_states([job.id])[job.id].state != "running" or not _count_retry(folder):
        return False
    try:
        call("scontrol", "requeue", job.id)
    except SlurmError as error:
        print(f"could not be requeued: {error}", file=sys.stderr, flush=True)
        return False
    state = state or _next_attempt(folder)
    _settle(
        folder,
        job,
        replace(state, status=Status.INTERRUPTED, ended=now(), reason=f"to be started again after: {reason}"),
    )
    return True


def _count_retry(folder: RunFolder) -> bool:
    """Whether the infrastructure's failure may be answered by one more start; counts it."""
    submission = Submission.read(folder)
    cluster = folder.read_plan()["config"]["cluster"]
    checkpoint = folder.checkpoint
    from_time = checkpoint.stat().st_mtime if checkpoint.exists() else 0.0
    if submission is None:
        return False
    retries = submission.retries + 1 if from_time == submission.retried_from else 1
    if retries > cluster["max_retries"]:
        return False
    replace(submission, retries=retries, retried_from=from_time).write(folder)
    return True


def _lost_its_job(folder: RunFolder) -> bool:
    """Whether the last attempt of this job ended by neither its own doing nor a signal: a node failed, most likely.

    Slurm starts such a job again by itself. Ranks on other nodes may have said that they lost their connection.
    """
    state, submission = folder.state(), Submission.read(folder)
    own = state is not None and submission is not None and state.attempts > submission.attempts_before
    return own and state is not None and state.status in (Status.RUNNING, Status.FAILED)


def _next_attempt(folder: RunFolder) -> RunState:
    """The state of an attempt that did not live to write one."""
    before = folder.state()
    return replace(before, attempts=before.attempts + 1) if before else RunState(Status.RUNNING, 1, now())


def _settle(folder: RunFolder, job: SlurmJob, state: RunState) -> None:
    """Write a state for the attempt of this very job; one that never got to claim the folder does so now."""
    owned = folder.owned_by(job.attempt) if folder.current_owner() == job.attempt else folder.claim(job.attempt)
    owned.write_state(state)


def _settle_as_failed(folder: RunFolder, job: SlurmJob, state: RunState, reason: str) -> None:
    """What the ranks could not write any more."""
    folder.claim(job.attempt).write_failure(Failure.of_death(0, reason, log=folder.last_log_lines(0)))
    _settle(folder, job, replace(state, status=Status.FAILED, ended=now(), reason=reason))


def _is_lost_connection(failure: Failure) -> bool:
    """Whether what a rank complained about is the network between ranks, not its own work."""
    return bool(_LOST_CONNECTION.search(f"{failure.error} {failure.reason}"))


def _reason(code: int) -> str:
    if code > 128:
        number = code - 128
        name = signal.Signals(number).name if number in {s.value for s in signal.Signals} else f"signal {number}"
        hint = " (often the system's answer to too little memory)" if number == signal.SIGKILL else ""
        return f"a rank was killed by {name}{hint}"
    return f"a rank ended with exit code {code} and did not say why"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
