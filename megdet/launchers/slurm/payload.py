"""The payload of a submission: one JSON file, whose path is all that a job gets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megdet.launchers.rank import RANK_PROGRAM
from megdet.launchers.slurm.submission import Submission, plan_sha256
from megdet.planning.code_version import code_sha256
from megdet.runs.files import json_text, replace_file
from megdet.runs.folder import RunFolder
from megdet.runs.times import now

PAYLOAD = "runs.json"


@dataclass(frozen=True)
class Payload:
    """What a submission hands over: written before sbatch, read by ranks and bookkeeping."""

    folder: Path
    """The submission's: its name is the job's, and it has the script and the logs."""
    runs: tuple[RunFolder, ...]
    """In the order of the array's elements."""
    program: tuple[str, ...]
    """What ranks run: Python's arguments before the path of the plan."""
    submitted: str
    """ISO 8601."""
    code_sha256: str
    plan_sha256: tuple[str, ...]
    attempts_before: tuple[int, ...]
    canaries: tuple[str, ...] = ()
    """The folders of those that the runs wait for."""

    @classmethod
    def of(
        cls,
        folder: Path,
        runs: Sequence[RunFolder],
        *,
        program: Sequence[str] = RANK_PROGRAM,
        canaries: Sequence[RunFolder] = (),
    ) -> Payload:
        """Of runs whose plans are in their folders."""
        states = [run.state() for run in runs]
        return cls(
            folder=folder.resolve(),
            runs=tuple(RunFolder(run.path.resolve()) for run in runs),
            program=tuple(program),
            submitted=now(),
            code_sha256=code_sha256(),
            plan_sha256=tuple(plan_sha256(run) for run in runs),
            attempts_before=tuple(state.attempts if state else 0 for state in states),
            canaries=tuple(str(canary.path.resolve()) for canary in canaries),
        )

    @property
    def file(self) -> Path:
        return self.folder / PAYLOAD

    def write(self) -> None:
        values = {
            "submitted": self.submitted,
            "program": self.program,
            "code_sha256": self.code_sha256,
            "runs": [str(run.path) for run in self.runs],
            "plan_sha256": self.plan_sha256,
            "attempts_before": self.attempts_before,
            "canaries": self.canaries,
        }
        replace_file(self.file, json_text(values))

    @classmethod
    def read(cls, file: Path) -> Payload:
        values = json.loads(file.read_text())
        return cls(
            folder=file.parent,
            runs=tuple(RunFolder(Path(run)) for run in values["runs"]),
            program=tuple(values["program"]),
            submitted=values["submitted"],
            code_sha256=values["code_sha256"],
            plan_sha256=tuple(values["plan_sha256"]),
            attempts_before=tuple(values["attempts_before"]),
            canaries=tuple(values.get("canaries", ())),  # older files have none
        )

    def note_job(self, number: int, *, array: str) -> None:
        """The run of an array's element learns its job; one that knows it already is left alone."""
        run = self.runs[number]
        job = f"{array}_{number}" if len(self.runs) > 1 else array
        before = Submission.read(run)
        if before and (before.job, before.name) == (job, self.folder.name):
            return
        Submission(
            job=job,
            array=array,
            name=self.folder.name,
            submitted=self.submitted,
            log=str(job_log(self.folder, job)),
            plan_sha256=self.plan_sha256[number],
            code_sha256=self.code_sha256,
            attempts_before=self.attempts_before[number],
            history=(*before.history, before.job) if before else (),
            canaries=self.canaries,
        ).write(run)


def job_log(folder: Path, job: str) -> Path:
    """Where submitit lets a job write (`submitit.Job.paths.stdout`, without loading submitit)."""
    return folder / f"{job}_0_log.out"
