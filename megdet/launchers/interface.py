"""What a launcher is: three small classes, what starts runs, a started run, and what a rank knows of its own job.

The third is `megdet.runs.job_environment.JobEnvironment`: training uses it and knows no launcher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from megdet.config.schema import Config
from megdet.errors import ExitCode
from megdet.planning.plan import Plan
from megdet.runs.causes import Cause
from megdet.runs.folder import RunFolder
from megdet.runs.job_environment import JobEnvironment
from megdet.runs.status import Stand


class Launcher(Protocol):
    """Starts planned runs, somewhere."""

    def resolve(self, config: Config) -> Config:
        """The config with `auto` as the number of the place. Raises UserError."""

    def check(self, plan: Plan) -> None:
        """Raises UserError where there is no room for a plan."""

    def preview(self, plans: Sequence[Plan]) -> str:
        """What would be handed over, for a reader of a dry run; may be empty."""

    def run(self, plans: Sequence[Plan], under_way: Sequence[Plan], *, mirror: Callable[[Plan], None]) -> ExitCode:
        """Start plans, and wait for them and those that are under way already where that is wished.

        `mirror` is to be called for each run whose ranks could not tell their end themselves.
        """


class Job(Protocol):
    """A started run, as its launcher knows it."""

    def stand(self) -> Stand:
        """Where the run stands: its own word (state.json) joined with what the launcher knows."""

    def cancel(self) -> None:
        """Ask it to stop; training that is under way writes a checkpoint. Raises UserError where that fails."""

    @property
    def log(self) -> Path | None:
        """What was said around the ranks; None where nothing is kept but their own logs."""

    def cause(self) -> Cause | None:
        """What ended the run, where the launcher knows that better than the ranks, which only see each other go."""


class JobFinder(Protocol):
    """Finds a launcher's jobs. Kept for repeated looks, it may remember what not to ask again."""

    def find(self, folders: Sequence[RunFolder]) -> dict[RunFolder, Job]:
        """The jobs of runs that this launcher has started, with one question for all of them."""


class LauncherPackage(Protocol):
    """What the folder of a launcher offers; `megdet.launchers.named` lists them."""

    NAMES: tuple[str, ...]
    """The words of `hydra/launcher=` that mean it."""

    def make_launcher(self, name: str, config: Config) -> Launcher:
        """The launcher of one of its NAMES."""

    def make_job_finder(self) -> JobFinder: ...

    def make_job_environment(self, folder: RunFolder) -> JobEnvironment:
        """For the ranks of a run that this launcher has started."""
