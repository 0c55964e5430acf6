"""Runs that were handed over to job 7, as the launcher leaves them, and what becomes of them."""

from __future__ import annotations

from dataclasses import asdict

from megdet.launchers.slurm.attempt import SlurmAttempt
from megdet.launchers.slurm.intents import declare, fulfil
from megdet.launchers.slurm.meeting import Meeting
from megdet.launchers.slurm.payload import Payload
from megdet.runs.failure import Failure
from megdet.runs.folder import RunFolder
from megdet.runs.state import RunState
from megdet.runs.status import Status

NAME = "sweep-1"
"""Of the submission."""


def attempt(restarts: int = 0) -> SlurmAttempt:
    """That start of job 7."""
    return SlurmAttempt(job="7", array="7", restarts=restarts)


def submit(run: RunFolder, name: str = NAME, *, job: str = "7", program: tuple[str, ...] = ("-m", "x")) -> Payload:
    """Hand a run over; its job has not started."""
    run.claim(name)
    payload = Payload.of(run.path.parent / ".submissions" / name, [run], program=program)
    declare(payload)
    fulfil(payload, job)
    return payload


def begin(run: RunFolder, restarts: int = 0) -> RunFolder:
    """The ranks of that start have met; the run's folder, owned by them."""
    owned = attempt(restarts).claim(run, NAME)
    before = run.state()
    meeting = Meeting(attempt(restarts).name(NAME), "n1", 1, before.attempts if before else 0)
    owned.write_meeting(asdict(meeting))
    return owned


def word(owned: RunFolder, status: Status, *, attempts: int = 1, reason: str | None = None) -> None:
    """What the ranks say of their run."""
    owned.write_state(RunState(status, attempts=attempts, started="2026-01-01T00:00:00+00:00", reason=reason))


def complain(owned: RunFolder, error: str, reason: str) -> None:
    """What a rank says of its end."""
    owned.write_failure(Failure(1, error, reason))
