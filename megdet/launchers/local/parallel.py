"""This machine, as many runs at a time as its GPUs (or cores) allow: `hydra/launcher=submitit_local`.

    python -m megdet.launchers.side_by_side runs/<run_id>/plan.json

is one of them: a launcher of its own with the GPUs that CUDA_VISIBLE_DEVICES leaves it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from megdet.config.schema import Config
from megdet.errors import ExitCode
from megdet.launchers.in_turn import outcome_of
from megdet.launchers.local import check_fits_here, devices_here, folder_of, resolve_cluster, run_local
from megdet.launchers.processes import DIE_WITH_PARENT, cores_here, handling_signals, python_path
from megdet.planning.plan import Plan
from megdet.runs.files import replace_file
from megdet.runs.status import Status

EXITS: dict[Status, ExitCode] = {
    Status.FINISHED: ExitCode.OK,
    Status.DIVERGED: ExitCode.OK,
    Status.FAILED: ExitCode.RUN_FAILED,
    Status.INTERRUPTED: ExitCode.INTERRUPTED,
}


class SideBySide:
    """A run starts once there are GPUs (or cores) for all of its ranks; GPUs are never shared."""

    def __init__(self) -> None:
        self._free = _slots()
        self._slots = len(self._free)
        self._running: dict[subprocess.Popen[bytes], tuple[Plan, list[str]]] = {}
        self._stopped = 0

    def resolve(self, config: Config) -> Config:
        return resolve_cluster(config)

    def check(self, plan: Plan) -> None:
        check_fits_here(plan)

    def preview(self, plans: Sequence[Plan]) -> str:
        return ""

    def run(self, plans: Sequence[Plan], under_way: Sequence[Plan], *, mirror: Callable[[Plan], None]) -> ExitCode:
        """What is under way is another launcher's. Only for the main thread."""
        waiting, ended = list(plans), 0
        codes = set()
        with handling_signals(self._stop):
            while self._running or (waiting and not self._stopped):
                for plan in [] if self._stopped else waiting[:]:
                    if self._needs(plan) > len(self._free):
                        break  # in their order: a large run is not kept waiting by small ones
                    waiting.remove(plan)
                    self._start(plan)
                    print(f"{plan.run_id}: started; {folder_of(plan).path}", flush=True)
                for process in [process for process in self._running if process.poll() is not None]:
                    plan, slots = self._running.pop(process)
                    self._free += slots
                    ended += 1
                    codes.add(process.returncode)
                    print(f"[{ended}/{len(plans)}] {plan.run_id}: {_outcome(plan, process.returncode)}", flush=True)
                    if process.returncode:
                        mirror(plan)
                time.sleep(0.05)
        if self._stopped:
            return ExitCode.INTERRUPTED
        return ExitCode.RUN_FAILED if codes - {0} else ExitCode.OK

    def _needs(self, plan: Plan) -> int:
        """Where CPU ranks outnumber the cores, they have all of them to themselves."""
        return min(plan.layout.gpus, self._slots)

    def _start(self, plan: Plan) -> None:
        folder = folder_of(plan)
        folder.path.mkdir(parents=True, exist_ok=True)
        replace_file(folder.plan, plan.to_json())
        slots = [self._free.pop(0) for _ in range(self._needs(plan))]
        environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": python_path()}
        if devices_here():
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(slots)
        with folder.launcher_log.open("ab") as log:
            process = subprocess.Popen(
                [*DIE_WITH_PARENT, str(os.getpid()), *one_run(folder.plan)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Out of the terminal's reach: Ctrl-C comes here, and goes on as SIGTERM.
                start_new_session=True,
            )
        self._running[process] = plan, slots

    def _stop(self, number: int, frame: object) -> None:
        self._stopped += 1
        if self._stopped == 1:
            print("stopping: the runs write checkpoints (once more: at once)", file=sys.stderr, flush=True)
        for process in self._running:
            process.send_signal(signal.SIGTERM)


def one_run(plan_file: Path) -> list[str]:
    """The command of a launcher for one run."""
    return [sys.executable, "-m", __spec__.name, str(plan_file)]


def _slots() -> list[str]:
    """The GPUs that may be used, by the names that CUDA_VISIBLE_DEVICES knows; one name per core without any."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = devices_here()
    if devices and visible is not None:
        return [device.strip() for device in visible.split(",") if device.strip() not in ("", "-1")]
    return [str(number) for number in range(devices or cores_here())]


def _outcome(plan: Plan, code: int) -> str:
    for state, number in EXITS.items():
        if number == code and state != Status.DIVERGED:
            return outcome_of(plan, state)
    return f"its launcher ended with exit code {code}; see {folder_of(plan).launcher_log}"


def main(words: Sequence[str]) -> ExitCode:
    """One run, on what this process may use; how it ended, as an exit code."""
    return EXITS[run_local(Plan.from_json(Path(words[0]).read_text()))]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
