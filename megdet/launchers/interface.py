"""What a launcher is: three small classes, what starts runs, a started run, and what a rank knows of its own job.

The third is `megdet.runs.job_environment.JobEnvironment`: training uses it and knows no launcher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from megdet.config.schema import Config
from megdet.errors import ExitCode
from megdet.planning.plan import Plan
from megdet.runs.canary import Canary
from megdet.runs.causes import Cause
from megdet.runs.folder import RunFolder
from megdet.runs.job_environment import JobEnvironment
from megdet.runs.status import Stand


@dataclass(frozen=True)
class Start:
    """When a run would begin if it were launched now."""

    at: datetime | None
    why_unknown: str = ""
    """Why nobody knows it, where that is so."""
    longest_job_min: int | None = None
    """A run that takes longer goes on in another job, and waits for that one too; None: as long as it takes."""


class Launcher(Protocol):
    """Starts planned runs."""

    def resolve(self, config: Config) -> Config:
        """The config with `auto` as the number of the place. Raises UserError."""

    def check(self, plan: Plan) -> None:
        """Raises UserError if a plan does not fit."""

    def expected_start(self, plan: Plan) -> Start:
        """When the run would begin. Raises UserError where a plan does not fit."""

    def remarks(self, plans: Sequence[Plan]) -> Sequence[str]:
        """What a reader of the plans should know of the place; a line each."""

    def preview(self, plans: Sequence[Plan], *, canaries: Sequence[Canary] = ()) -> str:
        """What a dry run prints about the jobs; may be empty."""

    def run(
        self,
        plans: Sequence[Plan],
        under_way: Sequence[Plan],
        *,
        mirror: Callable[[Plan], None],
        canaries: Sequence[Canary] = (),
    ) -> ExitCode:
        """Start plans; if asked to, wait for them and for those that are already under way.

        Calls `mirror` for each run whose ranks could not record their end. A plan that waits for one of `canaries`
        starts once that has passed, and `sweep.max_gpu_hours` holds by what they have all measured.
        """


class Job(Protocol):
    """A started run, as its launcher knows it."""

    def stand(self) -> Stand:
        """The status of the run: its state.json joined with what the launcher knows."""

    def cancel(self) -> None:
        """Ask it to stop; training that is under way writes a checkpoint. Raises UserError where that fails."""

    @property
    def log(self) -> Path | None:
        """The job's own log; None if there are only the ranks' logs."""

    def cause(self) -> Cause | None:
        """What ended the run, if the launcher knows better than the ranks."""


class JobFinder(Protocol):
    """Finds a launcher's jobs. It may cache answers between calls."""

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
