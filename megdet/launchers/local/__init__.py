"""This machine: one run after the other, or as many at a time as fit."""

from __future__ import annotations

from megdet.config.schema import Config
from megdet.launchers.interface import JobFinder, Launcher
from megdet.runs.folder import RunFolder
from megdet.runs.job_environment import JobEnvironment, NoJob

NAMES: tuple[str, ...] = ("basic", "local_parallel")
"""`basic` is Hydra's own word for no launcher in particular."""


def make_launcher(name: str, config: Config) -> Launcher:
    from megdet.launchers.local.launcher import LocalLauncher
    from megdet.launchers.local.parallel import ParallelLauncher

    return ParallelLauncher() if name == "local_parallel" else LocalLauncher()


def make_job_finder() -> JobFinder:
    from megdet.launchers.local.job import LocalJobs

    return LocalJobs()


def make_job_environment(folder: RunFolder) -> JobEnvironment:
    """There is no queue to go back to."""
    return NoJob()
