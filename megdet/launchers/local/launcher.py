"""This machine, one run after the other: what is launched where nothing else is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from megdet.config.schema import Config
from megdet.errors import ExitCode
from megdet.launchers.local import check_fits_here, folder_of, resolve_cluster, run_local
from megdet.planning.plan import Plan
from megdet.runs.status import Status


class InTurn:
    """Each run has the whole machine; a run that is interrupted ends the sweep."""

    def __init__(self, run: Callable[[Plan], Status] = run_local) -> None:
        self._run = run

    def resolve(self, config: Config) -> Config:
        return resolve_cluster(config)

    def check(self, plan: Plan) -> None:
        check_fits_here(plan)

    def preview(self, plans: Sequence[Plan]) -> str:
        return ""

    def run(self, plans: Sequence[Plan], under_way: Sequence[Plan], *, mirror: Callable[[Plan], None]) -> ExitCode:
        """What is under way is another launcher's."""
        failed = 0
        for number, plan in enumerate(plans, start=1):
            print(f"[{number}/{len(plans)}] {folder_of(plan).path}", flush=True)
            outcome = self._run(plan)
            print(f"[{number}/{len(plans)}] {plan.run_id}: {outcome_of(plan, outcome)}", flush=True)
            if not outcome.is_result:
                mirror(plan)
            if outcome == Status.INTERRUPTED:
                return ExitCode.INTERRUPTED
            failed += outcome == Status.FAILED
        return ExitCode.RUN_FAILED if failed else ExitCode.OK


def outcome_of(plan: Plan, outcome: Status) -> str:
    """How a run ended, why, and what to do about it."""
    state = folder_of(plan).state()
    reason = f" ({state.reason})" if state and state.reason else ""
    ways_on = {
        Status.FAILED: f"; see {folder_of(plan).path}/failure.json and log-rank*.txt",
        Status.INTERRUPTED: "; the same command goes on from its checkpoint",
    }
    return outcome + reason + ways_on.get(outcome, "")
