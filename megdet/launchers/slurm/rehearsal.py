"""Would Slurm take this job? `sbatch --test-only` answers, without a job."""

from __future__ import annotations

import os
import re
from pathlib import Path

from megdet.launchers.slurm.client import SlurmClient, SlurmError, outside_of_jobs
from megdet.launchers.slurm.dispatch import BUSY, defaults_of_sbatch, script_of
from megdet.launchers.slurm.resources import Array

FOR_NOW = re.compile(
    r"busy|reserved|maintenance|down|drained|not responding|QOSMaxSubmit|AssocMaxSubmit|AssocGrpSubmit"
)
"""In answers that may be others tomorrow: the job may be submitted, and waits."""


def refusal_of(array: Array, client: SlurmClient) -> str | None:
    """Slurm's words where it would not take one job of an array; None where it would, or does not say."""
    one = Array(array.resources, array.plans[:1])
    environment = outside_of_jobs(os.environ) | defaults_of_sbatch(array.resources.cluster)
    try:
        client.call("sbatch", "--test-only", stdin=script_of(one, Path("megdet-test")), environment=environment)
    except SlurmError as error:
        said = " ".join(line.removeprefix("sbatch: error: ") for line in str(error).splitlines())
        return None if BUSY.search(said) or FOR_NOW.search(said) else said
    return None
