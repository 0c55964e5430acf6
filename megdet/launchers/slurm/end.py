"""The last task of a job, `python -m megdet.launchers.slurm.end PAYLOAD CODE`: what became of the run, where its ranks
could not say it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from megdet.errors import ExitCode
from megdet.launchers.slurm.attempt import SlurmAttempt
from megdet.launchers.slurm.client import SlurmClient, SlurmError
from megdet.launchers.slurm.job_log import first_to_end, said_around
from megdet.launchers.slurm.job_states import SlurmQueue
from megdet.launchers.slurm.let_go import let_go
from megdet.launchers.slurm.meeting import meeting_of
from megdet.launchers.slurm.payload import Payload
from megdet.launchers.slurm.retries import count_retry
from megdet.runs.causes import HOST_MEMORY, NETWORK, cause_of
from megdet.runs.failure import Failure
from megdet.runs.folder import LostOwnership, RunFolder
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.runs.times import now

KILLED = 128
"""Above it, an exit code is that of a process that a signal has killed: 137 is SIGKILL."""

CANNOT_RUN = (126, 127)
"""A shell's answer to a program that is not there, or no program: it will not be there the next time either."""

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
    if state and state.status.is_result:
        return ExitCode.OK  # all is recorded: whatever ended a rank, or srun, after that has cost nothing
    if state and state.status == Status.INTERRUPTED:
        return ExitCode.INTERRUPTED
    code = code or ExitCode.RUN_FAILED
    try:
        owned = attempt.claim(folder, submission)
    except LostOwnership as error:
        print(error, file=sys.stderr, flush=True)
        return code
    failure = folder.failure() if meeting else None
    said = said_around(folder, attempt.name(submission))
    rank, reason = _what_ended_it(failure, code, began=meeting is not None, said=said)
    cause = cause_of(failure if reason == "" else None, [reason])
    if cause.retried:
        client = client or SlurmClient()
        known = SlurmQueue(client).states([attempt.job])[attempt.job].state
        why = reason or (failure.reason if failure else "")
        if known == "running" and _requeued(attempt, owned, state or next_state(folder), why, client):
            return code
        if failure is None and known in GOING:
            return code
    if reason:
        fail(owned, state or next_state(folder), reason, rank=rank)
    elif failure and (state is None or state.status != Status.FAILED):
        # It failed before its first word, and the state is an earlier attempt's; or rank 0 was just saving, and has
        # written that it runs after another rank had failed.
        state = state or next_state(folder)
        owned.write_state(replace(state, status=Status.FAILED, ended=now(), reason=failure.reason))
    return code


def fail(owned: RunFolder, state: RunState, reason: str, *, rank: int | None = None) -> None:
    """Write down what the ranks could not write any more."""
    owned.release_room()
    owned.write_failure(Failure.of_death(rank, reason, log=owned.last_log_lines(rank or 0)))
    owned.write_state(replace(state, status=Status.FAILED, ended=now(), reason=reason))


def next_state(folder: RunFolder) -> RunState:
    """The state of an attempt that did not live to write one."""
    before = folder.state()
    return replace(before, attempts=before.attempts + 1) if before else RunState(Status.RUNNING, 1, now())


def _what_ended_it(failure: Failure | None, code: int, *, began: bool, said: Sequence[str]) -> tuple[int | None, str]:
    """The rank and the reason that the ranks cannot have said; none where the failure that they left says all.

    `code` is the highest of all ranks, and those that are left when one has ended are killed: srun says who was first.
    """
    rank, first_code = first_to_end(said)
    code = first_code or code
    spoke = code in (ExitCode.RUN_FAILED, ExitCode.USER_ERROR)
    if failure and (spoke or cause_of(failure) is not NETWORK):
        return None, ""
    # The ranks that were left only lost their connection to the one that was killed.
    if any(HOST_MEMORY.pattern and HOST_MEMORY.pattern.search(line) for line in said):
        return rank, "a rank was killed: out of main memory"
    if began:
        return rank, _reason("a rank" if rank is None else f"rank {rank}", code)
    if code in CANNOT_RUN:
        return None, f"its ranks could not be run (exit code {code})"
    return None, f"its ranks never began (exit code {code})"


def _requeued(attempt: SlurmAttempt, owned: RunFolder, state: RunState, reason: str, client: SlurmClient) -> bool:
    """What failed was not the code: once more, from the last checkpoint, up to cluster.max_retries times."""
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


def _reason(who: str, code: int) -> str:
    if code > KILLED:
        number = code - KILLED
        name = signal.Signals(number).name if number in {s.value for s in signal.Signals} else f"signal {number}"
        return f"{who} was killed by {name}"
    return f"{who} ended with exit code {code} and did not say why"


def main(payload_file: str, code: str) -> int:
    payload, attempt = Payload.read(Path(payload_file)), SlurmAttempt.here()
    assert attempt is not None, "only jobs of submitit's end with this"
    folder = payload.runs[int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))]
    ended = end(attempt, folder, int(code), submission=payload.folder.name)
    if folder.is_canary and ended == ExitCode.OK:
        return _end_of_canary(attempt, folder, payload.folder.name)
    return ended


def _end_of_canary(attempt: SlurmAttempt, folder: RunFolder, submission: str) -> int:
    """Not 0 where the runs that wait for it must not start: Slurm then cancels them."""
    owned = attempt.claim(folder, submission)
    if refused := let_go(owned, SlurmClient()):
        fail(owned, folder.state() or next_state(folder), refused)
        return ExitCode.USER_ERROR
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
