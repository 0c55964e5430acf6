"""The rank processes of one attempt at a run, on one machine: started, watched, none left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import megdet
from megdet.errors import ExitCode
from megdet.runs.failure import Failure
from megdet.runs.folder import ATTEMPT, RunFolder
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.runs.times import now

STOP_GRACE_S = 30.0
"""For ranks that are asked to stop: they finish a step and write a checkpoint."""
FAILURE_GRACE_S = 5.0
"""For the ranks left when one has failed: most of them wait in a collective and cannot go on."""

NO_TRIM = {
    "MALLOC_MMAP_THRESHOLD_": str(8 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
"""glibc keeps freed memory for the next step; giving it back and faulting it in again is a quarter of a CPU step."""

DIE_WITH_PARENT = (sys.executable, "-I", "-S", str(Path(__file__).with_name("die_with_parent.py")))


class RankProcesses:
    """One process per rank, for one attempt; a rank that dies takes the others with it."""

    def __init__(
        self, folder: RunFolder, *, command: Sequence[str], ranks: int, on_gpus: bool, lock: int, stop_grace_s: float
    ) -> None:
        """`lock` is a file descriptor that the ranks hold open as long as they live."""
        self.folder, self.command, self.ranks, self.on_gpus = folder, command, ranks, on_gpus
        self.lock, self.stop_grace_s = lock, stop_grace_s
        self._processes: list[subprocess.Popen[bytes]] = []
        self._signals_received = 0
        self._kill_at: float | None = None
        self._first_dead: int | None = None

    def run(self) -> Status:
        """Start the ranks, wait for all of them; how the run ended. Only for the main thread."""
        before = self.folder.state()
        started = now()
        with handling_signals(self._on_signal):
            try:
                self._start()
                self._wait()
            finally:
                self._kill()
        return self._settle(before, started)

    def _start(self) -> None:
        port = _free_port()
        for rank in range(self.ranks):
            with self.folder.log(rank).open("ab") as log:
                process = subprocess.Popen(
                    [*DIE_WITH_PARENT, str(os.getpid()), *self.command, str(self.folder.plan)],
                    env=self._environment(rank, port),
                    # Rank 0 has the terminal, for its progress, and writes its own log.
                    stdout=log if rank else None,
                    stderr=log if rank else None,
                    stdin=subprocess.DEVNULL,
                    # Out of the terminal's reach: Ctrl-C comes to the launcher, which passes on SIGTERM.
                    start_new_session=True,
                    pass_fds=(self.lock,),
                )
            self._processes.append(process)
        if self._signals_received:
            self._terminate(self.stop_grace_s)

    def _wait(self) -> None:
        while True:
            codes = [process.poll() for process in self._processes]
            dead = [rank for rank, code in enumerate(codes) if code]
            if dead and self._first_dead is None:
                self._first_dead = min(dead, key=lambda rank: _blame(codes[rank] or 0))
                if not self._signals_received:
                    asked_to_stop = codes[self._first_dead] == ExitCode.INTERRUPTED
                    self._terminate(self.stop_grace_s if asked_to_stop else FAILURE_GRACE_S)
            if None not in codes:
                return
            if self._kill_at is not None and time.monotonic() > self._kill_at:
                self._kill()
            time.sleep(0.05)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals_received += 1
        if self._signals_received == 1:
            print("stopping: the ranks write a checkpoint (once more: at once)", file=sys.stderr, flush=True)
            self._terminate(self.stop_grace_s)
        else:
            self._kill_at = time.monotonic()

    def _terminate(self, grace_s: float) -> None:
        self._kill_at = time.monotonic() + grace_s
        for process in self._processes:
            process.terminate()

    def _kill(self) -> None:
        """End every rank and whatever it started (loader workers), at once."""
        for process in self._processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        for process in self._processes:
            process.wait()

    def _settle(self, before: RunState | None, started: str) -> Status:
        """The state that the ranks left, or the one that they could not write any more."""
        codes = [process.returncode for process in self._processes]
        state = self.folder.state()
        if state is None or state == before:
            attempts = before.attempts + 1 if before else 1
            state = replace(
                before or RunState(Status.RUNNING, attempts, started), status=Status.RUNNING, attempts=attempts
            )
        if not any(codes) and state.status.is_result:
            return state.status
        rank = self._first_dead or 0
        if self._signals_received or codes[rank] == ExitCode.INTERRUPTED:
            if state.status != Status.INTERRUPTED:
                reason = "stopped by a signal to the launcher"
                self.folder.write_state(replace(state, status=Status.INTERRUPTED, ended=now(), reason=reason))
            return Status.INTERRUPTED
        if codes[rank] <= 0 or not self.folder.failure_file.exists():
            reason = _reason(rank, codes[rank])
            self.folder.write_failure(Failure.of_death(rank, reason, log=self.folder.last_log_lines(rank)))
            self.folder.write_state(replace(state, status=Status.FAILED, ended=now(), reason=reason))
        return Status.FAILED

    def _environment(self, rank: int, port: int) -> Mapping[str, str]:
        """What a rank finds in its environment; thread and malloc settings of the user's stay."""
        defaults = {"PYTHONUNBUFFERED": "1", **NO_TRIM}
        if not self.on_gpus:
            defaults["OMP_NUM_THREADS"] = str(max(1, cores_here() // self.ranks))
        return {
            **defaults,
            **os.environ,
            "PYTHONPATH": python_path(),
            ATTEMPT: str(self.folder.owner),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(self.ranks),
            "LOCAL_WORLD_SIZE": str(self.ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }


def python_path() -> str:
    """For a process that is to find this very package, installed or not."""
    return os.pathsep.join([str(Path(megdet.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])


def _blame(code: int) -> int:
    """Of ranks that are found dead together, who is the cause: one that was killed (the others only lost their
    connection to it), then one that failed, then one that was asked to stop."""
    return 0 if code < 0 else 2 if code == ExitCode.INTERRUPTED else 1


def _reason(rank: int, code: int) -> str:
    if code < 0:
        hint = " (often the system's answer to too little memory)" if -code == signal.SIGKILL else ""
        return f"rank {rank} was killed by {signal.Signals(-code).name}{hint}"
    if code == 0:
        return "the ranks ended without saying how"
    return f"rank {rank} ended with exit code {code} and did not say why"


def cores_here() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def handling_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP go to `handler`. Only for the main thread."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, old in zip(numbers, before, strict=True):
            signal.signal(number, old)
