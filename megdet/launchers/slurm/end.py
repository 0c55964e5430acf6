"""The last task of a job, `python -m megdet.launchers.slurm.end PAYLOAD CODE`: what became of the run, where its ranks
could not say it.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from megdet.errors import ExitCode
from megdet.launchers.slurm.attempt import SlurmAttempt
from megdet.launchers.slurm.client import SlurmClient, SlurmError
from megdet.launchers.slurm.job_states import SlurmQueue
from megdet.launchers.slurm.meeting import meeting_of
from megdet.launchers.slurm.payload import Payload
from megdet.launchers.slurm.retries import count_retry, is_lost_connection
from megdet.runs.failure import Failure
from megdet.runs.folder import LostOwnership, RunFolder
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.runs.times import now

KILLED = 128
"""Above it, an exit code is that of a process that a signal has killed: 137 is SIGKILL."""

GOING = ("pending", "completing", "cancelled")
"""States of a job that is being requeued or cancelled: it must not come back, and Slurm tells what became of it."""


def end(
    attempt: SlurmAttempt, folder: RunFolder, code: int, *, submission: str, client: SlurmClient | None = None
) -> int:
    """Settle a run's state after its ranks ended with `code` (the highest of theirs); the job's exit code.

    `submission`: its name.
    """
    meeting = meeting_of(folder, attempt.name(submission))
    state = folder.state() if meeting else None
    if meeting and state and state.attempts <= meeting.attempts_before:
        state = None  # an earlier attempt's
    if state and state.status.is_result and code == 0:
        return ExitCode.OK
    if state and state.status == Status.INTERRUPTED:
        return ExitCode.INTERRUPTED
    code = code or ExitCode.RUN_FAILED
    try:
        owned = attempt.claim(folder, submission)
    except LostOwnership as error:
        print(error, file=sys.stderr, flush=True)
        return code
    failure = folder.failure() if meeting else None
    cause = _cause_outside(state, failure, code)
    if cause:
        client = client or SlurmClient()
        known = SlurmQueue(client).states([attempt.job])[attempt.job].state
        if known == "running" and _requeued(attempt, owned, state or next_state(folder), cause, client):
            return code
        if failure is None and known in GOING:
            return code
    # The ranks that were left only lost their connection to the one that was killed.
    if failure is None or (is_lost_connection(failure) and code > KILLED):
        fail(owned, state or next_state(folder), _reason(code))
    return code


def fail(owned: RunFolder, state: RunState, reason: str) -> None:
    """Write down what the ranks could not write any more."""
    owned.write_failure(Failure.of_death(None, reason, log=owned.last_log_lines(0)))
    owned.write_state(replace(state, status=Status.FAILED, ended=now(), reason=reason))


def next_state(folder: RunFolder) -> RunState:
    """The state of an attempt that did not live to write one."""
    before = folder.state()
    return replace(before, attempts=before.attempts + 1) if before else RunState(Status.RUNNING, 1, now())


def _cause_outside(state: RunState | None, failure: Failure | None, code: int) -> str | None:
    """What ended the ranks, where that was neither their own work nor a signal to one of them."""
    if failure is None:
        return "its ranks never began" if state is None and code > KILLED else None
    return failure.reason if is_lost_connection(failure) and code == ExitCode.RUN_FAILED else None


def _requeued(attempt: SlurmAttempt, owned: RunFolder, state: RunState, reason: str, client: SlurmClient) -> bool:
    """The network failed, not the code: once more, from the last checkpoint, up to cluster.max_retries times."""
    if not count_retry(owned):
        return False
    before = owned.state()
    reason = f"to be started again after: {reason}"
    # Written first: Slurm ends this process once the job is requeued.
    owned.write_state(replace(state, status=Status.INTERRUPTED, ended=now(), reason=reason))
    try:
        client.requeue(attempt.job)
    except SlurmError as error:
        print(f"could not be requeued: {error}", file=sys.stderr, flush=True)
        if before:
            owned.write_state(before)
        return False
    return True


def _reason(code: int) -> str:
    if code > KILLED:
        number = code - KILLED
        name = signal.Signals(number).name if number in {s.value for s in signal.Signals} else f"signal {number}"
        hint = " (often the system's answer to too little memory)" if number == signal.SIGKILL else ""
        return f"a rank was killed by {name}{hint}"
    return f"a rank ended with exit code {code} and did not say why"


def main(payload_file: str, code: str) -> int:
    payload, attempt = Payload.read(Path(payload_file)), SlurmAttempt.here()
    assert attempt is not None, "only jobs of submitit's end with this"
    folder = payload.runs[int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))]
    return end(attempt, folder, int(code), submission=payload.folder.name)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
