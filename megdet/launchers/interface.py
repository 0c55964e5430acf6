"""What a launcher is: a place where planned runs can go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from megdet.config.schema import Config
from megdet.errors import ExitCode
from megdet.planning.plan import Plan


class Launcher(Protocol):
    """Runs planned experiments, somewhere."""

    def resolve(self, config: Config) -> Config:
        """The config with `auto` as the number of the place. Raises UserError."""

    def check(self, plan: Plan) -> None:
        """Raises UserError where there is no room for a plan."""

    def preview(self, plans: Sequence[Plan]) -> str:
        """What would be handed over, for a reader of a dry run; may be empty."""

    def run(self, plans: Sequence[Plan], under_way: Sequence[Plan], *, mirror: Callable[[Plan], None]) -> ExitCode:
        """Start plans, and wait for them and those that are under way already where that is wished; the exit code.

        `mirror` is to be called for each run whose ranks could not tell their end themselves.
        """
