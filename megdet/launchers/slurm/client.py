"""Calls of Slurm's own commands, each with a time limit: a controller that is busy or gone never hangs us."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from megdet.errors import UserError

CALL_TIMEOUT_S = 20.0
SUBMIT_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Between the attempts at sbatch while the controller is busy."""

NO_SLURM = (
    "hydra/launcher=submitit_slurm: {}; launch from a login node of the cluster, or leave hydra/launcher out to "
    "run here"
)

_BUSY = re.compile(
    r"timed out|Unable to contact|Connection refused|Resource temporarily unavailable|try again|temporarily|"
    r"Zero Bytes|Communication connection failure|MaxSubmitJobLimit|Transport endpoint",
    re.IGNORECASE,
)


class SlurmError(RuntimeError):
    """A command of Slurm's failed, is not there, or did not answer in time; the text is its own last words."""


def call(*words: str, timeout_s: float | None = None) -> str:
    """Standard output of a command of Slurm's; `timeout_s` None: CALL_TIMEOUT_S. Raises SlurmError."""
    timeout_s = CALL_TIMEOUT_S if timeout_s is None else timeout_s
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=timeout_s, check=False, env=outside_of_jobs(os.environ)
        )
    except FileNotFoundError:
        raise SlurmError(f"{words[0]} is not installed here") from None
    except OSError as error:
        raise SlurmError(f"{words[0]}: {error}") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{words[0]} timed out: no answer in {timeout_s:g} s") from None
    if done.returncode:
        raise SlurmError(done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}")
    return done.stdout


def submit(script: Path, *, already: Callable[[], str | None], pauses_s: Sequence[float] = SUBMIT_PAUSES_S) -> str:
    """The id of the job that sbatch makes of `script`; tried again while the controller is busy.

    `already()`: the job where an earlier attempt made it and only the answer was lost.

    Raises UserError where Slurm is not there or refuses, with its words; SlurmError where it is not known whether
    there is a job.
    """
    for pause_s in (*pauses_s, None):
        try:
            return call("sbatch", "--parsable", str(script), timeout_s=60).strip().partition(";")[0]
        except SlurmError as error:
            if "not installed" in str(error):
                raise UserError(NO_SLURM.format("there is no sbatch on this machine")) from None
            if not _BUSY.search(str(error)):
                raise UserError(f"Slurm does not take the job: {error}\nThe script: {script}") from None
            if pause_s is None:
                raise
        time.sleep(pause_s)
        if job := already():
            return job
    raise AssertionError("the last attempt returns or raises")


@cache
def max_array_size() -> int:
    """Elements that an array may have at most, as `scontrol show config` says."""
    try:
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", call("scontrol", "show", "config"), re.MULTILINE)
    except SlurmError as error:
        raise UserError(NO_SLURM.format(f"Slurm does not answer ({error})")) from None
    # Slurm's number is one more than the highest index, and its default where it does not say.
    return int(found.group(1)) if found else 1001


def outside_of_jobs(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without a surrounding job's variables: they would become the new job's settings."""
    ours = ("SLURM_CONF", "SLURM_TIME_FORMAT")
    prefixes = ("SLURM_", "SBATCH_", "SRUN_", "SLURMD_", "PMI", "SUBMITIT_")
    return {key: value for key, value in environment.items() if key in ours or not key.startswith(prefixes)}
