"""Calls of Slurm's own commands, each with a time limit: a controller that is busy or gone never hangs us."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

CALL_TIMEOUT_S = 20.0
DEFAULT_MAX_ARRAY_SIZE = 1001
"""Slurm's own, where it does not say."""

_OF_A_JOB = ("SLURM_", "SBATCH_", "SRUN_", "SLURMD_", "PMI", "SUBMITIT_")
OF_THE_SITE = ("SLURM_CONF", "SLURM_TIME_FORMAT")


class SlurmError(RuntimeError):
    """A command of Slurm's failed, is not there, or did not answer in time; the text is its own last words."""


@dataclass(frozen=True)
class SlurmClient:
    """Slurm's commands, as they are on this machine."""

    timeout_s: float = CALL_TIMEOUT_S

    def call(
        self, *words: str, stdin: str = "", environment: Mapping[str, str] | None = None, with_stderr: bool = False
    ) -> str:
        """Standard output of a command, and its standard error if wanted. Raises SlurmError.

        `environment`: instead of this one without its job's.
        """
        environment = outside_of_jobs(os.environ) if environment is None else environment
        try:
            done = subprocess.run(
                words,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=self.timeout_s,
                check=False,
                env=environment,
            )
        except FileNotFoundError:
            raise SlurmError(f"{words[0]} is not installed here") from None
        except OSError as error:
            raise SlurmError(f"{words[0]}: {error}") from None
        except subprocess.TimeoutExpired:
            raise SlurmError(f"{words[0]} timed out: no answer in {self.timeout_s:g} s") from None
        if done.returncode:
            raise SlurmError(done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}")
        return done.stdout + (done.stderr if with_stderr else "")

    def max_array_size(self) -> int:
        """Elements that an array may have at most. Raises SlurmError."""
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", self.call("scontrol", "show", "config"), re.MULTILINE)
        # Slurm's number is one more than the highest index.
        return int(found.group(1)) if found else DEFAULT_MAX_ARRAY_SIZE

    def requeue(self, job: str) -> None:
        """Put a job back into the queue; Slurm ends what is left of it. Raises SlurmError."""
        self.call("scontrol", "requeue", job)

    def limit_time(self, job: str, minutes: int) -> None:
        """Give a job, or all that wait of an array, another time limit; users may only lower it. Raises SlurmError."""
        self.call("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")

    def cancel(self, job: str) -> None:
        """Raises SlurmError."""
        self.call("scancel", job)


def outside_of_jobs(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without a surrounding job's variables: they would become the new job's settings."""
    return {key: value for key, value in environment.items() if key in OF_THE_SITE or not key.startswith(_OF_A_JOB)}
