"""The rank processes of one attempt at a run, on one machine: started, watched, none left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from megdet.errors import ExitCode
from megdet.launchers.local.memory import oom_kills
from megdet.launchers.local.signals import handling_signals
from megdet.launchers.local.stderr_copy import StderrCopy
from megdet.launchers.rank import rank_environment, with_code
from megdet.launchers.settle import blame, settle
from megdet.runs.folder import RunFolder
from megdet.runs.status import Status
from megdet.runs.times import now

STOP_GRACE_S = 30.0
"""For ranks that are asked to stop: they finish a step and write a checkpoint."""
FAILURE_GRACE_S = 5.0
"""For the ranks left when one has failed: most of them wait in a collective and cannot go on."""

DIE_WITH_PARENT = (sys.executable, "-I", "-S", str(Path(__file__).with_name("die_with_parent.py")))


class RankProcesses:
    """One process per rank, for one attempt; a rank that dies takes the others with it."""

    def __init__(
        self,
        folder: RunFolder,
        *,
        program: Sequence[str],
        ranks: int,
        threads: int | None,
        code: Path | None,
        lock: int,
        stop_grace_s: float,
        failure_grace_s: float,
    ) -> None:
        """`folder` is the attempt's own; `lock` a file descriptor that the ranks hold open as long as they live; `code`
        the folder with the copy of megdet that they import, or None.
        """
        self.folder, self.program, self.ranks, self.threads = folder, program, ranks, threads
        self.code = code
        self.lock, self.stop_grace_s, self.failure_grace_s = lock, stop_grace_s, failure_grace_s
        self._processes: list[subprocess.Popen[bytes]] = []
        self._stderr: StderrCopy | None = None
        self._signals_received = 0
        self._kill_at: float | None = None
        self._first_dead: int | None = None

    def run(self) -> Status:
        """Start the ranks, wait for all of them; how the run ended. Only for the main thread."""
        before, started, kills = self.folder.state(), now(), oom_kills()
        with handling_signals(self._on_signal), TemporaryDirectory(prefix="megdet-") as place:
            try:
                self._start(Path(place) / "store")
                self._wait()
            finally:
                self._kill()
                if self._stderr:
                    self._stderr.close()
        return settle(
            self.folder,
            before=before,
            started=started,
            codes=[process.returncode for process in self._processes],
            first_dead=self._first_dead,
            stopped=self._signals_received > 0,
            out_of_memory=oom_kills() > kills,
        )

    def _start(self, store: Path) -> None:
        self._stderr = StderrCopy(self.folder.log(0))
        try:
            for rank in range(self.ranks):
                self._processes.append(self._start_rank(rank, store, self._stderr))
        finally:
            self._stderr.started()
        if self._signals_received:
            self._terminate(self.stop_grace_s)

    def _start_rank(self, rank: int, store: Path, stderr: StderrCopy) -> subprocess.Popen[bytes]:
        with self.folder.log(rank).open("ab") as log:
            return subprocess.Popen(
                [*DIE_WITH_PARENT, str(os.getpid()), sys.executable, *self.program, str(self.folder.plan)],
                env={**self._environment(rank, store), **({} if rank else stderr.environment)},
                # Rank 0 has the terminal, for its progress, and writes its own log.
                stdout=log if rank else None,
                stderr=log if rank else stderr.write_end,
                stdin=subprocess.DEVNULL,
                # Out of the terminal's reach: Ctrl-C comes to the launcher, which passes on SIGTERM.
                start_new_session=True,
                pass_fds=(self.lock, *(() if rank else (stderr.ours,))),
            )

    def _wait(self) -> None:
        while True:
            codes = [process.poll() for process in self._processes]
            dead = [rank for rank, code in enumerate(codes) if code]
            if dead and self._first_dead is None:
                self._first_dead = min(dead, key=lambda rank: blame(codes[rank] or 0))
                if not self._signals_received:
                    asked_to_stop = codes[self._first_dead] == ExitCode.INTERRUPTED
                    self._terminate(self.stop_grace_s if asked_to_stop else self.failure_grace_s)
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

    def _environment(self, rank: int, store: Path) -> Mapping[str, str]:
        return rank_environment(
            with_code(os.environ, self.code),
            attempt=str(self.folder.owner),
            rank=rank,
            local_rank=rank,
            ranks=self.ranks,
            ranks_per_node=self.ranks,
            store=store,
            threads=self.threads,
        )
