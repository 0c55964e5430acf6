"""Plain jobs for tests: submitted by sbatch, watched by scontrol, which knows without accounting too."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from tests.slurm.cluster import SlurmCluster
from tests.slurm.daemons import wait_until

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY")


def submit(cluster: SlurmCluster, folder: Path, body: str, *options: str) -> str:
    """Submit a bash script, run in `folder`, its output in `slurm-<job>.out` there; the job's id."""
    script = folder / "job.sh"
    script.write_text(f"#!/bin/bash\n{body}\n")
    return cluster.call("sbatch", "--parsable", f"--chdir={folder}", *options, str(script))


def state_of(cluster: SlurmCluster, job: str) -> str:
    """Slurm's word for the state of a job or array element; empty where it is not known any more."""
    return field_of(cluster, job, "JobState")


def field_of(cluster: SlurmCluster, job: str, name: str) -> str:
    """A field of `scontrol show job`, such as Restarts or ExitCode."""
    shown = cluster.try_call("scontrol", "--oneliner", "show", "job", job).stdout
    found = re.search(rf"\b{name}=(\S+)", shown)
    return found.group(1) if found else ""


def wait_for(cluster: SlurmCluster, job: str, states: Collection[str] = ENDED, *, timeout_s: float = 60.0) -> str:
    """Wait until a job is in one of the states (by default: has ended); which. AssertionError after that time."""
    if not wait_until(lambda: state_of(cluster, job) in states, timeout_s=timeout_s, every_s=0.2):
        shown = cluster.try_call("scontrol", "show", "job", job)
        raise AssertionError(
            f"job {job} is not {' or '.join(states)} after {timeout_s} s:\n{shown.stdout}{shown.stderr}"
        )
    return state_of(cluster, job)
