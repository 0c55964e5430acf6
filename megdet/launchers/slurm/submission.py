"""submission.json: which job of Slurm's a run was handed to."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace

from megdet.errors import UserError
from megdet.planning.code_version import code_sha256
from megdet.runs.checked import checked
from megdet.runs.folder import RunFolder
from megdet.runs.run_files import SUBMISSION
from megdet.runs.run_records import WAYS_OUT
from megdet.runs.times import now

LAUNCHER = "slurm"


@dataclass(frozen=True)
class Submission:
    """The job of a run."""

    job: str
    """`123`, or `123_4` of an array."""
    array: str
    """The job that the whole submission is."""
    name: str
    """The job's name, unique to the submission."""
    submitted: str
    """ISO 8601."""
    log: str
    """What the job itself said: srun's and Slurm's words, and rank 0's."""
    plan_sha256: str
    code_sha256: str
    attempts_before: int = 0
    """Attempts at the run before this job; a state.json with more of them is this job's."""
    retries: int = 0
    """How often in a row the job was started again, without progress, because a node or the network failed."""
    retried_from: float = 0.0
    """The checkpoint's time at the last of them: a newer one is progress."""
    cancelled: str | None = None
    """When somebody cancelled it, ISO 8601."""
    history: tuple[str, ...] = ()
    """Jobs that the run had before, oldest first."""
    canaries: tuple[str, ...] = ()
    """The folders of the canaries that the job waits for."""

    def write(self, folder: RunFolder) -> None:
        folder.note_submission(LAUNCHER, asdict(self))

    @classmethod
    def read(cls, folder: RunFolder) -> Submission | None:
        """None where the run is no job of Slurm's. Raises UserError where the file is damaged."""
        values = folder.submission()
        if values is None or values.pop("launcher") != LAUNCHER:
            return None
        try:
            return checked(cls, values)
        except ValueError as error:
            raise UserError(f"{folder.submission_file} is damaged ({error}); {WAYS_OUT[SUBMISSION]}") from None

    def edits_since(self, folder: RunFolder) -> list[str]:
        """What has been edited since the run was handed over: `plan`, `code`."""
        edited = {
            "plan": self.plan_sha256 != plan_sha256(folder),
            "code": self.code_sha256 != code_sha256(),
        }
        return [what for what, differs in edited.items() if differs]


def mark_cancelled(folder: RunFolder) -> None:
    """Note that a run's job is cancelled on purpose."""
    submission = Submission.read(folder)
    if submission:
        replace(submission, cancelled=now()).write(folder)


def plan_sha256(folder: RunFolder) -> str:
    return hashlib.sha256(folder.plan.read_bytes()).hexdigest()
