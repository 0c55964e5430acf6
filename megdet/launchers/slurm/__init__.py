"""Slurm: runs become jobs that submitit submits."""

from __future__ import annotations

from megdet.config.schema import Config
from megdet.launchers.interface import JobFinder, Launcher
from megdet.runs.folder import RunFolder
from megdet.runs.job_environment import JobEnvironment

NAMES: tuple[str, ...] = ("submitit_slurm",)


def make_launcher(name: str, config: Config) -> Launcher:
    from megdet.launchers.slurm.launcher import SlurmLauncher

    return SlurmLauncher(wait=config.sweep.wait)


def make_job_finder() -> JobFinder:
    from megdet.launchers.slurm.job import SlurmJobs

    return SlurmJobs()


def make_job_environment(folder: RunFolder) -> JobEnvironment:
    from megdet.launchers.slurm.job_environment import SlurmJobEnvironment

    return SlurmJobEnvironment(folder)
