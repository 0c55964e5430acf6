"""The default launcher: this machine, one run after the other."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from megdet.config.schema import Config
from megdet.errors import ExitCode
from megdet.launchers.canaries import run_after_canaries
from megdet.launchers.interface import Start
from megdet.launchers.local.machine import Machine
from megdet.launchers.local.one_run import run_local
from megdet.planning.plan import Plan
from megdet.runs.canary import Canary
from megdet.runs.folder import RunFolder, folder_of
from megdet.runs.journal import read_journal
from megdet.runs.status import Status


class LocalLauncher:
    """Each run gets the whole machine; an interrupted run ends the sweep."""

    def __init__(self, machine: Machine | None = None, *, run: Callable[[Plan], Status] | None = None) -> None:
        """`machine`: this one. `run`: how one run is run; by `run_local`."""
        self._given = machine
        self._run = run or (lambda plan: run_local(plan, machine=self.machine))

    @cached_property
    def machine(self) -> Machine:
        """Asked for when it is needed: nvidia-smi takes a moment."""
        return self._given or Machine.here()

    def resolve(self, config: Config) -> Config:
        return self.machine.resolve(config)

    def check(self, plan: Plan) -> None:
        self.machine.check(plan)

    def expected_start(self, plan: Plan) -> Start:
        return self.machine.expected_start(plan)

    def remarks(self, plans: Sequence[Plan]) -> Sequence[str]:
        return self.machine.remarks(plans)

    def preview(self, plans: Sequence[Plan], *, canaries: Sequence[Canary] = ()) -> str:
        return ""

    def run(
        self,
        plans: Sequence[Plan],
        under_way: Sequence[Plan],
        *,
        mirror: Callable[[Plan], None],
        canaries: Sequence[Canary] = (),
    ) -> ExitCode:
        """What is under way is another launcher's."""
        if canaries:
            return run_after_canaries(plans, canaries, lambda some: self.run(some, (), mirror=mirror))
        failed = 0
        for number, plan in enumerate(plans, start=1):
            print(f"[{number}/{len(plans)}] {folder_of(plan).path}", flush=True)
            status = self._run(plan)
            print(f"[{number}/{len(plans)}] {plan.run_id}: {how_it_ended(plan, status)}", flush=True)
            if not status.is_result:
                mirror(plan)
            if status == Status.INTERRUPTED:
                return ExitCode.INTERRUPTED
            failed += status == Status.FAILED
        return ExitCode.RUN_FAILED if failed else ExitCode.OK


def how_it_ended(plan: Plan, status: Status) -> str:
    """How a run ended: with which mmAP, or why not; and what to do next."""
    folder = folder_of(plan)
    state = folder.state()
    if status == Status.FINISHED and not folder.is_canary:
        return f"{status}{_result(folder)}; {next_steps(folder)}"
    if status == Status.DIVERGED and state and not folder.is_canary:
        return f"{state.reason}; that is a result: tables say failed, as the paper's do"
    reason = f" ({state.reason})" if state and state.reason else ""
    ways_on = {
        Status.FAILED: "; megdet why says what to do",
        Status.INTERRUPTED: "; the same command goes on from its checkpoint",
    }
    return status + reason + ways_on.get(status, "")


def next_steps(folder: RunFolder) -> str:
    """What to look at: in ./runs a run is known by its id, elsewhere by its path."""
    runs = folder.path.parent
    if runs.resolve() == Path(Config().runs_dir).resolve():
        return f"next: megdet tables, megdet predict {folder.path.name} FOLDER"
    here = Path.cwd()
    places = [path.relative_to(here) if path.is_relative_to(here) else path for path in (runs, folder.path)]
    tables_of, run = (shlex.quote(str(place)) for place in places)
    return f"next: megdet tables --from {tables_of}, megdet predict {run} FOLDER"


def _result(folder: RunFolder) -> str:
    epochs = read_journal(folder, kinds=("epoch",))
    mmap = epochs[-1].get("mmAP") if epochs else None
    return "" if mmap is None else f", mmAP {mmap:.1f}"
