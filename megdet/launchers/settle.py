"""How a run ended, if its ranks did not live to record it."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace

from megdet.errors import ExitCode
from megdet.runs.causes import NETWORK, cause_of
from megdet.runs.failure import NO_PROGRESS, Failure
from megdet.runs.folder import RunFolder
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.runs.times import now


def settle(
    folder: RunFolder,
    *,
    before: RunState | None,
    started: str,
    codes: Sequence[int],
    first_dead: int | None,
    stopped: bool,
    out_of_memory: bool = False,
) -> Status:
    """Write down how an attempt ended, if its ranks have not.

    `before`: the state that the attempt found. `codes`: how each rank ended; negative: killed by that signal.
    `first_dead`: the rank that ended the others. `stopped`: whether the launcher was asked to stop. `out_of_memory`:
    whether the system has ended processes for want of memory meanwhile.
    """
    state = folder.state()
    if state is None or state == before:
        attempts = before.attempts + 1 if before else 1
        state = replace(before or RunState(Status.RUNNING, attempts, started), status=Status.RUNNING, attempts=attempts)
    if state.status.is_result:
        return state.status  # all is recorded: whatever ended a rank after that has cost nothing
    rank = first_dead or 0
    if stopped or codes[rank] == ExitCode.INTERRUPTED:
        if state.status != Status.INTERRUPTED:
            reason = "stopped by a signal to the launcher"
            folder.write_state(replace(state, status=Status.INTERRUPTED, ended=now(), reason=reason))
        return Status.INTERRUPTED
    failure = folder.failure()
    if failure is None or not _says_it(failure, rank, codes[rank]):
        reason = _reason(rank, codes[rank], out_of_memory=out_of_memory)
        folder.release_room()
        folder.write_failure(Failure.of_death(rank, reason, log=folder.last_log_lines(rank)))
        folder.write_state(replace(state, status=Status.FAILED, ended=now(), reason=reason))
    elif (before and state.attempts == before.attempts) or state.status != Status.FAILED:
        # It failed before its first word, and the state is an earlier attempt's; or rank 0 was just saving, and has
        # written that it runs after another rank had failed.
        attempts = before.attempts + 1 if before else 1
        state = replace(state, status=Status.FAILED, attempts=attempts, ended=now(), reason=failure.reason)
        folder.write_state(state)
    return Status.FAILED


def _says_it(failure: Failure, rank: int, code: int) -> bool:
    """Whether what is on record tells how `rank` ended, and with it the attempt."""
    if failure.error == NO_PROGRESS:
        return True  # who wrote that has killed it
    spoke = code in (ExitCode.RUN_FAILED, ExitCode.USER_ERROR)
    # A rank may only complain of the connection to one that went before it, without a word.
    is_echo = failure.rank != rank and not spoke and cause_of(failure) is NETWORK
    return code > 0 and not is_echo


def blame(code: int) -> int:
    """Of ranks that are found dead together, who is the cause (the lowest): one that was killed (the others only lost
    their connection to it), then one that failed, then one that was asked to stop."""
    return 0 if code < 0 else 2 if code == ExitCode.INTERRUPTED else 1


def _reason(rank: int, code: int, *, out_of_memory: bool) -> str:
    if code == -signal.SIGKILL and out_of_memory:
        return f"rank {rank} was killed: out of main memory, as the kernel says"
    if code < 0:
        return f"rank {rank} was killed by {signal.Signals(-code).name}"
    if code == 0:
        return "the ranks ended without saying how"
    return f"rank {rank} ended with exit code {code} and did not say why"
