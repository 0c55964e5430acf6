"""Which job runs what: submission.json in each run folder, and intent tokens that survive a crash of the launcher.

A token is written before sbatch and removed once every run of the submission knows its job. A token that is found
at the next start belongs to a launcher that died between: its jobs are looked up by their unique name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from fcntl import LOCK_EX, LOCK_NB, flock
from functools import cache
from pathlib import Path

import megdet
from megdet.errors import UserError
from megdet.launchers.sbatch import submissions_folder
from megdet.runs.files import json_text, replace_file
from megdet.runs.folder import RunFolder

SCRIPT = "submission.sh"
RUNS = "runs.json"
"""In a submission's folder: what it hands over (`Handed`)."""


@dataclass(frozen=True)
class Submission:
    """Where a run was handed over to."""

    launcher: str
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

    def write(self, folder: RunFolder) -> None:
        replace_file(folder.submission, json_text(asdict(self)))

    @classmethod
    def read(cls, folder: RunFolder) -> Submission | None:
        """None where the run was never handed over, or was run on this machine since."""
        try:
            text = (folder.submission).read_text()
        except FileNotFoundError:
            return None
        try:
            values = json.loads(text)
            return cls(**{**values, "history": tuple(values["history"])})
        except (TypeError, KeyError, ValueError) as error:
            raise UserError(f"{folder.submission} is damaged ({error}); move the run folder away") from None


@dataclass(frozen=True)
class Handed:
    """What a submission hands over: written before sbatch, read by the job's ranks and by the bookkeeping."""

    runs: tuple[RunFolder, ...]
    """Run folders, in the order of the array's elements."""
    submitted: str
    code_sha256: str
    plan_sha256: tuple[str, ...]
    attempts_before: tuple[int, ...]

    @classmethod
    def read(cls, path: Path) -> Handed:
        values = json.loads(path.read_text())
        return cls(
            runs=tuple(RunFolder(Path(run)) for run in values["runs"]),
            submitted=values["submitted"],
            code_sha256=values["code_sha256"],
            plan_sha256=tuple(values["plan_sha256"]),
            attempts_before=tuple(values["attempts_before"]),
        )


def write_intent(folder: Path, runs: Sequence[RunFolder]) -> None:
    """Before sbatch: what the submission in `folder` is about to run; the runs' plans are there."""
    folder.mkdir(parents=True)
    states = [run.state() for run in runs]
    handed = {
        "submitted": _now(),
        "code_sha256": code_sha256(),
        "runs": [str(run.path.resolve()) for run in runs],
        "plan_sha256": [_sha256_of(run.plan) for run in runs],
        "attempts_before": [state.attempts if state else 0 for state in states],
    }
    replace_file(folder / RUNS, json.dumps(handed, indent=1) + "\n")
    _token(folder).touch()


def book(folder: Path, array: str) -> None:
    """After sbatch: every run of the submission in `folder` learns its job, and the token goes."""
    for number in range(len(Handed.read(folder / RUNS).runs)):
        book_run(folder, number, array=array)
    _token(folder).unlink(missing_ok=True)


def book_run(folder: Path, number: int, *, array: str) -> None:
    """The run of an array's element learns its job; one that knows it already is left alone."""
    handed = Handed.read(folder / RUNS)
    run = handed.runs[number]
    job = f"{array}_{number}" if len(handed.runs) > 1 else array
    before = Submission.read(run)
    if before and (before.job, before.name) == (job, folder.name):
        return
    Submission(
        launcher="slurm",
        job=job,
        array=array,
        name=folder.name,
        submitted=handed.submitted,
        log=str(folder / f"{job}.log"),
        plan_sha256=handed.plan_sha256[number],
        code_sha256=handed.code_sha256,
        attempts_before=handed.attempts_before[number],
        history=(*before.history, before.job) if before else (),
    ).write(run)


def withdraw(folder: Path) -> None:
    """Slurm took no job of the submission in `folder`, or has forgotten them: nothing but their logs is left."""
    for name in (RUNS, SCRIPT):
        (folder / name).unlink(missing_ok=True)
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()
    _token(folder).unlink(missing_ok=True)


def mark_cancelled(run: RunFolder) -> None:
    """Note that a run's job is cancelled on purpose."""
    submission = Submission.read(run)
    if submission:
        Submission(**{**asdict(submission), "cancelled": _now()}).write(run)


def reconcile(runs_dir: Path, jobs_named: Callable[[str], Sequence[str]]) -> list[str]:
    """Finish what launchers that died between sbatch and bookkeeping have begun; a line on each.

    `jobs_named` gives the jobs of a name; what it raises leaves the tokens for the next time.
    """
    said = []
    for token in sorted(submissions_folder(runs_dir).glob("*.intent")):
        folder = token.with_suffix("")
        jobs = jobs_named(folder.name)
        if jobs and (folder / RUNS).exists():
            book(folder, jobs[0].partition("_")[0])
            said.append(f"{folder.name}: submitted by a launcher that did not live to note it; noted now")
        elif list(folder.glob("*.log")):
            # Jobs that Slurm has forgotten by now; their ranks have noted themselves.
            token.unlink()
        else:
            withdraw(folder)
            said.append(f"{folder.name}: a launcher died before Slurm had its jobs; submitted again where asked for")
    return said


@contextmanager
def submitting(runs_dir: Path) -> Iterator[None]:
    """One launcher at a time submits runs of a folder. Raises UserError where another is at it."""
    folder = submissions_folder(runs_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another launcher is submitting runs of {runs_dir}; try again when it is done") from None
        yield


def changes_since_submission(run: RunFolder) -> list[str]:
    """What has been edited since the run was handed over: `plan`, `code`."""
    submission = Submission.read(run)
    if submission is None:
        return []
    now = {"plan": _sha256_of(run.plan), "code": code_sha256()}
    then = {"plan": submission.plan_sha256, "code": submission.code_sha256}
    return [what for what in now if now[what] != then[what]]


@cache
def code_sha256() -> str:
    """Of all source files of this package."""
    digest = hashlib.sha256()
    root = Path(megdet.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _token(folder: Path) -> Path:
    return folder.with_name(folder.name + ".intent")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
