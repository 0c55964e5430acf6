"""Where Slurm's jobs stand: squeue first, sacct for what squeue has forgotten, with or without accounting."""

from __future__ import annotations

import getpass
import os
import pwd
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from megdet.launchers.slurm.client import SlurmClient, SlurmError

JobStateName = Literal[
    "pending", "running", "completing", "completed", "failed", "cancelled", "timeout", "preempted", "node_fail",
    "out_of_memory", "gone", "unknown",
]  # fmt: skip

_NAMES: dict[str, JobStateName] = {
    "PENDING": "pending", "CONFIGURING": "pending", "REQUEUED": "pending", "REQUEUE_HOLD": "pending",
    "REQUEUE_FED": "pending", "RESV_DEL_HOLD": "pending", "SPECIAL_EXIT": "pending",
    "RUNNING": "running", "SUSPENDED": "running", "STOPPED": "running", "SIGNALING": "running",
    "STAGE_OUT": "running", "RESIZING": "running",
    "COMPLETING": "completing", "COMPLETED": "completed", "FAILED": "failed", "CANCELLED": "cancelled",
    "REVOKED": "cancelled", "TIMEOUT": "timeout", "DEADLINE": "timeout", "PREEMPTED": "preempted",
    "NODE_FAIL": "node_fail", "BOOT_FAIL": "node_fail", "OUT_OF_MEMORY": "out_of_memory",
}  # fmt: skip

SACCT_PAUSE_S = 300.0
"""How long an sacct that failed is left alone."""


@dataclass(frozen=True)
class JobState:
    """Where one job (`123`, or `123_4` of an array) stands."""

    state: JobStateName
    """gone: Slurm answers and does not know the job (any more); unknown: Slurm does not answer."""
    exit_code: int | None = None
    """Of its batch script; above 128: killed by that signal."""
    reason: str = ""
    """Slurm's word for why it waits or ended, if any."""
    name: str = ""
    """The job's name; tells a job from one of an earlier cluster that had the same number."""

    @property
    def is_live(self) -> bool:
        """Whether the job waits or runs, or may do so for all that is known."""
        return self.state in ("pending", "running", "completing", "unknown")


class SlurmQueue:
    """The user's jobs. Kept for repeated looks, it remembers that sacct fails."""

    def __init__(self, client: SlurmClient | None = None) -> None:
        self._client = client or SlurmClient()
        self._accounts = SacctClient(self._client)

    def states(self, jobs: Sequence[str]) -> dict[str, JobState]:
        """The state of each job; takes seconds at worst, also where Slurm is slow, gone or keeps no accounts."""
        wanted = set(jobs)
        if not wanted:
            return {}
        try:
            found = self._from_squeue()
        except SlurmError as error:
            said = " ".join(str(error).split())
            return {job: JobState("unknown", reason=f"Slurm does not answer: {said}") for job in wanted}
        states = {job: state for job, state in found.items() if job in wanted}
        missing = wanted - states.keys()
        if missing:
            arrays = ",".join(sorted({job.partition("_")[0] for job in missing}))
            states |= {job: state for job, state in self._accounts.ask("--jobs", arrays).items() if job in missing}
        gone = JobState("gone", reason="Slurm does not know the job any more")
        return {job: states.get(job, gone) for job in wanted}

    def named(self, name: str) -> list[str]:
        """The ids (`123_4` for elements of arrays) of the jobs of that name that squeue or sacct know.

        Raises SlurmError where squeue does not answer.
        """
        found = [job for job, state in self._from_squeue().items() if state.name == name]
        return found or list(self._accounts.ask("--name", name))

    def _from_squeue(self) -> dict[str, JobState]:
        """All jobs of the user that the controller remembers, those that ended in the last minutes among them."""
        text = self._client.call(
            "squeue", "--noheader", "--array", "--states=all", f"--user={_user()}",
            "--Format=JobArrayID:|,State:|,exit_code:|,Name:|,Reason:|",
        )  # fmt: skip
        return _states_in(text)


class SacctClient:
    """Slurm's accounts; where there are none, it does not ask at every look."""

    def __init__(self, client: SlurmClient, *, pause_s: float = SACCT_PAUSE_S) -> None:
        self._client, self._pause_s = client, pause_s
        self._failed_at: float | None = None

    def ask(self, option: str, value: str) -> dict[str, JobState]:
        """The states of the jobs that fit; empty where there is no accounting, or it does not answer."""
        if self._failed_at is not None and time.monotonic() - self._failed_at < self._pause_s:
            return {}
        try:
            # From far enough back: sacct looks at today alone where it is not told, unless jobs are named.
            text = self._client.call(
                "sacct", "--noheader", "--parsable2", "--allocations", "--starttime=now-30days",
                "--format=JobID,State,ExitCode,JobName,Reason", f"{option}={value}",
            )  # fmt: skip
        except SlurmError:
            self._failed_at = time.monotonic()
            return {}
        return _states_in(text)


def _states_in(text: str) -> dict[str, JobState]:
    """Of lines `job|state|exit code|name|reason`, which squeue and sacct are both asked for."""
    states = {}
    for line in text.splitlines():
        job, state, exit_code, name, reason = (word.strip() for word in (*line.split("|"), "", "", "", "", "")[:5])
        states[job] = JobState(_state_of(state), _exit_code(exit_code), "" if reason == "None" else reason, name)
    return states


def _state_of(word: str) -> JobStateName:
    """Slurm's word, which may have an explanation behind it: `CANCELLED by 1000`, `CANCELLED+`."""
    return _NAMES.get(word.partition(" ")[0].rstrip("+"), "unknown")


def _exit_code(text: str) -> int | None:
    """squeue gives the raw status of wait(), sacct `code:signal`."""
    code, _, number = text.partition(":")
    if not code.isdigit():
        return None
    if number:
        return 128 + int(number) if int(number) else int(code)
    status = int(code)
    return 128 + (status & 0x7F) if status & 0x7F else status >> 8


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return getpass.getuser()
