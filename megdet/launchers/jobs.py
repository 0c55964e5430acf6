"""The status of runs of any launcher: each launcher is asked once for all of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from megdet.errors import UserError
from megdet.launchers.interface import Job, JobFinder
from megdet.launchers.named import LAUNCHERS, launcher_of
from megdet.runs.canary import failed_canary
from megdet.runs.causes import Diagnosis, diagnose
from megdet.runs.folder import RunFolder
from megdet.runs.job_environment import JobEnvironment
from megdet.runs.run_files import SUBMISSION
from megdet.runs.run_records import WAYS_OUT, last_lines
from megdet.runs.status import Stand, Status


@dataclass(frozen=True)
class Look:
    """The status of runs at one moment."""

    _jobs: Mapping[RunFolder, Job]
    _asked: Mapping[RunFolder, str]
    """Whose runs they were at that moment, by the launcher's name."""

    def job(self, folder: RunFolder) -> Job | None:
        """The job of a run; None where it was never started. Raises UserError for a damaged folder."""
        name, job = launcher_of(folder), self._jobs.get(folder)
        # Of a run that was handed over since, nobody has asked yet.
        if job is None and self._asked.get(folder) == name and folder.submission() is not None:
            raise UserError(f"{folder.submission_file} is damaged: its job is not in it; {WAYS_OUT[SUBMISSION]}")
        return job

    def stand(self, folder: RunFolder) -> Stand:
        """Where a run stands; a damaged file of one run is said there, and keeps no other run from being seen."""
        state = folder.state()
        if state and state.status.is_result:
            lost = folder.lost_records(state)
            return Stand(Status.INTERRUPTED, lost) if lost else Stand(state.status, state.reason or "")
        try:
            job = self.job(folder)
        except UserError as error:
            # Whether it is under way is not known; started again, it takes the folder from whoever has it.
            return Stand(Status.FAILED, str(error))
        stand = job.stand() if job else Stand(Status.NEW)
        damage = folder.damage()
        return Stand(Status.INTERRUPTED, damage) if damage and not stand.status.is_live else stand

    def diagnosis(self, folder: RunFolder, stand: Stand | None = None) -> Diagnosis | None:
        """Why a run came to no result; None where it did.

        `stand`: the run's status, if the caller already has it.
        """
        try:
            job = self.job(folder)
        except UserError:
            job = None  # its stand says it
        stand = stand or self.stand(folder)
        if stand.status == Status.CANCELLED and (canary := failed_canary(folder)):
            found = Jobs().look_at([canary]).diagnosis(canary)
            return found and replace(found, run=folder.name, reason=f"canary {canary.name} failed: {found.reason}")
        log = last_lines(job.log) if job and job.log else ()
        return diagnose(folder, stand, known=job.cause() if job else None, job_log=log)


class Jobs:
    """Asks launchers repeatedly; their finders keep what they have learnt."""

    def __init__(self) -> None:
        self._finders: dict[str, JobFinder] = {}

    def look_at(self, folders: Sequence[RunFolder]) -> Look:
        """Ask each launcher once; damaged folders raise only when asked about."""
        by_launcher: dict[str, list[RunFolder]] = {}
        for folder in folders:
            with suppress(UserError, OSError):
                by_launcher.setdefault(launcher_of(folder), []).append(folder)
        jobs: dict[RunFolder, Job] = {}
        for name, own in by_launcher.items():
            if name not in self._finders:
                self._finders[name] = LAUNCHERS[name].make_job_finder()
            jobs |= self._finders[name].find(own)
        return Look(jobs, {folder: name for name, own in by_launcher.items() for folder in own})

    def stands_of(self, folders: Sequence[RunFolder]) -> dict[RunFolder, Stand]:
        """Where each run stands."""
        look = self.look_at(folders)
        return {folder: look.stand(folder) for folder in folders}


def stands_of(folders: Sequence[RunFolder]) -> dict[RunFolder, Stand]:
    """Where each run stands, for who looks once."""
    return Jobs().stands_of(folders)


def job_of(folder: RunFolder) -> Job | None:
    """The job of a run; None where it was never started. Raises UserError for a damaged folder."""
    return Jobs().look_at([folder]).job(folder)


def job_environment_of(folder: RunFolder) -> JobEnvironment:
    """For the ranks of a run: what they know of their own job. Raises UserError for a damaged folder."""
    return LAUNCHERS[launcher_of(folder)].make_job_environment(folder)
