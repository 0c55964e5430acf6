"""This machine, as many runs at a time as its GPUs (or cores) allow: `hydra/launcher=local_parallel`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property

from megdet.config.schema import Config
from megdet.errors import ExitCode
from megdet.launchers.canaries import run_after_canaries
from megdet.launchers.interface import Start
from megdet.launchers.local.launcher import how_it_ended
from megdet.launchers.local.machine import Machine
from megdet.launchers.local.one_run import EXIT_CODES
from megdet.launchers.local.ranks import DIE_WITH_PARENT
from megdet.launchers.local.signals import handling_signals
from megdet.launchers.rank import with_code
from megdet.planning.plan import Plan
from megdet.runs.canary import Canary
from megdet.runs.code import frozen_code
from megdet.runs.folder import folder_of, run_folder
from megdet.runs.run_records import last_lines
from megdet.runs.status import Status

ONE_RUN = (sys.executable, "-m", "megdet.launchers.local.one_run")
"""A launcher for one run, whose plan it reads from its standard input."""
ENDS = {code: status for status, code in EXIT_CODES.items() if not status.is_result}


class ParallelLauncher:
    """A run starts once there are GPUs (or cores) for all of its ranks; GPUs are never shared."""

    def __init__(self, machine: Machine | None = None, *, one_run: Sequence[str] = ONE_RUN) -> None:
        """`machine`: this one. `one_run`: the command for one run."""
        self._given, self._one_run = machine, one_run
        self._running: dict[subprocess.Popen[str], tuple[Plan, list[str]]] = {}
        self._times_stopped = 0

    @cached_property
    def machine(self) -> Machine:
        """Asked for when it is needed: nvidia-smi takes a moment."""
        return self._given or Machine.here()

    @cached_property
    def _free(self) -> list[str]:
        """The GPUs that no run has; without any, a number for each core."""
        return list(self.machine.gpus or map(str, range(self.machine.cores)))

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
        """What is under way is another launcher's. Only for the main thread."""
        if canaries:
            return run_after_canaries(plans, canaries, lambda some: self.run(some, (), mirror=mirror))
        waiting, ended = list(plans), 0
        codes = set()
        with handling_signals(self._stop):
            while self._running or (waiting and not self._times_stopped):
                while not self._times_stopped and (plan := self._next(waiting)):
                    waiting.remove(plan)
                    self._start(plan)
                for process in [process for process in self._running if process.poll() is not None]:
                    plan, devices = self._running.pop(process)
                    self._free += devices
                    ended += 1
                    codes.add(process.returncode)
                    print(f"[{ended}/{len(plans)}] {plan.run_id}: {_how(plan, process.returncode)}", flush=True)
                    if process.returncode:
                        mirror(plan)
                time.sleep(0.05)
        if self._times_stopped:
            return ExitCode.INTERRUPTED
        return ExitCode.RUN_FAILED if codes - {ExitCode.OK} else ExitCode.OK

    def _next(self, waiting: Sequence[Plan]) -> Plan | None:
        """The run to start now; None where there is none, or no room for it.

        In their order: a large run is not kept waiting by small ones. But one that goes on from a checkpoint of another
        lets the others pass until that is there, or will not be.
        """
        to_come = {plan.run_id for plan in (*waiting, *(plan for plan, _ in self._running.values()))}
        ready = (plan for plan in waiting if not (plan.fork and plan.fork.run_id in to_come) or _has_its_fork(plan))
        plan = next(ready, None)
        return plan if plan and self._needs(plan) <= len(self._free) else None

    def _needs(self, plan: Plan) -> int:
        """Where CPU ranks outnumber the cores, they have all of them to themselves."""
        return min(plan.layout.gpus, len(self.machine.gpus) or self.machine.cores)

    def _start(self, plan: Plan) -> None:
        folder = folder_of(plan)
        folder.path.mkdir(parents=True, exist_ok=True)
        devices = [self._free.pop(0) for _ in range(self._needs(plan))]
        environment = {"OMP_NUM_THREADS": "1", **with_code(os.environ, frozen_code(plan))}
        if self.machine.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
        with folder.launcher_log.open("ab") as log:
            process = subprocess.Popen(
                [*DIE_WITH_PARENT, str(os.getpid()), *self._one_run],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                # Out of the terminal's reach: Ctrl-C comes here, and goes on as SIGTERM.
                start_new_session=True,
            )
        self._running[process] = plan, devices
        if self._times_stopped:  # in this very moment
            process.send_signal(signal.SIGTERM)
        print(f"{plan.run_id}: started; {folder.path}", flush=True)
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(plan.to_json())

    def _stop(self, number: int, frame: object) -> None:
        self._times_stopped += 1
        if self._times_stopped == 1:
            print("stopping: the runs write checkpoints (once more: at once)", file=sys.stderr, flush=True)
        for process in self._running:
            process.send_signal(signal.SIGTERM)


def _has_its_fork(plan: Plan) -> bool:
    assert plan.fork is not None
    source = run_folder(plan.config.runs_dir, plan.fork.run_id)
    return folder_of(plan).has_begun or source.kept_checkpoint(plan.fork.epoch).exists()


def _how(plan: Plan, code: int) -> str:
    if code in ENDS:
        return how_it_ended(plan, ENDS[ExitCode(code)])
    if code == ExitCode.OK:
        state = folder_of(plan).state()  # which of the results it is, this alone says
        return how_it_ended(plan, state.status if state else Status.FINISHED)
    log = folder_of(plan).launcher_log
    if code == ExitCode.USER_ERROR:
        return "\n".join(last_lines(log, 1))
    return f"its launcher ended with exit code {code}; see {log}"
