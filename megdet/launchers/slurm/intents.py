"""Intent tokens: a launcher may die at any moment, and no job is lost or made twice.

A token is written before sbatch and removed once every run of the submission knows its job. A token that is found
at the next start belongs to a launcher that died between: its jobs are looked up by their unique name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

from megdet.errors import UserError
from megdet.launchers.slurm.payload import PAYLOAD, Payload, job_log

TOKEN = ".intent"


def submissions_folder(runs_dir: str | os.PathLike[str]) -> Path:
    """Where the payloads, scripts, logs and intent tokens of submissions are."""
    return Path(runs_dir).resolve() / ".submissions"


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


def declare(payload: Payload) -> None:
    """Before sbatch: what is about to be submitted."""
    payload.folder.mkdir(parents=True)
    payload.write()
    _token(payload.folder).touch()


def fulfil(payload: Payload, array: str) -> None:
    """After sbatch: every run learns its job, and the token goes."""
    for number in range(len(payload.runs)):
        payload.note_job(number, array=array)
    _token(payload.folder).unlink(missing_ok=True)


def withdraw(folder: Path) -> None:
    """Slurm took no job of a submission, or has forgotten them: nothing but their logs is left."""
    logs = set(_logs(folder))
    for path in folder.iterdir() if folder.exists() else ():
        if path not in logs:
            path.unlink()
    if folder.exists() and not logs:
        folder.rmdir()
    _token(folder).unlink(missing_ok=True)


def reconcile(runs_dir: Path, jobs_named: Callable[[str], Sequence[str]]) -> list[str]:
    """Finish what launchers that died between sbatch and bookkeeping have begun; a line on each.

    `jobs_named` gives the jobs of a name; what it raises leaves the tokens for the next time.
    """
    said = []
    for token in sorted(submissions_folder(runs_dir).glob(f"*{TOKEN}")):
        folder = token.with_suffix("")
        jobs = jobs_named(folder.name)
        if jobs and (folder / PAYLOAD).exists():
            fulfil(Payload.read(folder / PAYLOAD), jobs[0].partition("_")[0])
            said.append(f"{folder.name}: submitted by a launcher that did not live to note it; noted now")
        elif _logs(folder):
            # Jobs that Slurm has forgotten by now; their ranks have noted themselves.
            token.unlink()
        else:
            withdraw(folder)
            said.append(f"{folder.name}: a launcher died before Slurm had its jobs; submitted again where asked for")
    return said


def _logs(folder: Path) -> list[Path]:
    return list(folder.glob(job_log(folder, "*").name))


def _token(folder: Path) -> Path:
    return folder.with_name(folder.name + TOKEN)
