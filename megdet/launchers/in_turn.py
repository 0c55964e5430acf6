"""This machine, one run after the other: what is launched where nothing else is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from megdet.config.schema import Config
from megdet.launchers.interface import ALL_WELL, INTERRUPTED, RUN_FAILED
from megdet.launchers.local import check_fits_here, resolve_cluster, run_folder, run_local
from megdet.planning.plan import Plan
from megdet.runs.journal import RunState, State


class InTurn:
    """Each run has the whole machine; a run that is interrupted ends the sweep."""

    def __init__(self, run: Callable[[Plan], State] = run_local) -> None:
        self._run = run

    def resolve(self, config: Config) -> Config:
        return resolve_cluster(config)

    def check(self, plan: Plan) -> None:
        check_fits_here(plan)

    def preview(self, plans: Sequence[Plan]) -> str:
        return ""

    def run(self, plans: Sequence[Plan], under_way: Sequence[Plan], *, mirror: Callable[[Plan], None]) -> int:
        """What is under way is another launcher's."""
        failed = 0
        for number, plan in enumerate(plans, start=1):
            print(f"[{number}/{len(plans)}] {run_folder(plan)}", flush=True)
            outcome = self._run(plan)
            print(f"[{number}/{len(plans)}] {plan.run_id}: {outcome_of(plan, outcome)}", flush=True)
            if outcome in ("failed", "interrupted"):
                mirror(plan)
            if outcome == "interrupted":
                return INTERRUPTED
            failed += outcome == "failed"
        return RUN_FAILED if failed else ALL_WELL


def outcome_of(plan: Plan, outcome: State) -> str:
    """How a run ended, why, and what to do about it."""
    state = RunState.read(run_folder(plan))
    reason = f" ({state.reason})" if state and state.reason else ""
    ways_on = {
        "failed": f"; see {run_folder(plan)}/failure.json and log-rank*.txt",
        "interrupted": "; the same command goes on from its checkpoint",
    }
    return outcome + reason + ways_on.get(outcome, "")
