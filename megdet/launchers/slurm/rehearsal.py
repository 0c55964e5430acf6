"""Would Slurm take this job, and when would it start? `sbatch --test-only` answers both, without a job."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from megdet.launchers.slurm.client import SlurmClient, SlurmError, outside_of_jobs
from megdet.launchers.slurm.discovery import NOT_HEARD_OF
from megdet.launchers.slurm.dispatch import BUSY, defaults_of_sbatch, script_of
from megdet.launchers.slurm.resources import Array

FOR_NOW = re.compile(
    r"busy|reserved|maintenance|down|drained|not responding|QOSMaxSubmit|AssocMaxSubmit|AssocGrpSubmit"
)
"""In answers that may be others tomorrow: the job may be submitted, and waits."""
START = re.compile(r"to start at (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)")


@dataclass(frozen=True)
class Rehearsal:
    """Slurm's answer about a job that is not submitted."""

    start: datetime | None = None
    """When it would begin; None where Slurm does not say it."""
    refusal: str | None = None
    """Slurm's words where it would not take the job."""
    unknown: str = ""
    """Slurm's words where it names no time and does not refuse."""


def rehearse(array: Array, client: SlurmClient) -> Rehearsal:
    """Ask about one job of an array."""
    one = Array(array.resources, array.plans[:1])
    environment = outside_of_jobs(os.environ) | defaults_of_sbatch(array.resources.cluster)
    script = script_of(one, Path("megdet-test"))
    try:
        said = client.call("sbatch", "--test-only", stdin=script, environment=environment, with_stderr=True)
    except SlurmError as error:
        words = " ".join(line.removeprefix("sbatch: error: ") for line in str(error).splitlines())
        for_now = BUSY.search(words) or FOR_NOW.search(words) or _has_just_started(client)
        return Rehearsal(unknown=words) if for_now else Rehearsal(refusal=words)
    found = START.search(said)
    # Slurm's clock is this machine's: it names no zone.
    start = datetime.fromisoformat(found.group(1)).astimezone() if found else None
    return Rehearsal(start, unknown="" if start else "sbatch --test-only names no time")


def _has_just_started(client: SlurmClient) -> bool:
    """Whether Slurm has yet to hear of a node: it says then that there is none, and takes the job all the same."""
    try:
        return NOT_HEARD_OF in client.call("sinfo", "--noheader", "--format=%T").lower()
    except SlurmError:
        return True
