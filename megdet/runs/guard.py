"""The guard of rank 0: a small process that ends a rank which was stopped, or hangs so that its watchdog cannot run.

Other ranks would notice, but a run may have one rank, and all of them may be stopped. The rank starts its guard itself,
so that it has one under every launcher and by hand. It loads no torch, and ends with its rank.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from megdet.errors import UserError
from megdet.runs.beats import Beat, read_beats
from megdet.runs.failure import Failure
from megdet.runs.folder import LostOwnership, RunFolder
from megdet.runs.last_words import write_down

LOOK_S = 5.0
END_S = 10.0
NOT_FOR_IT = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
"""What asks a rank to stop comes to its whole process group."""


@contextmanager
def guarded(folder: RunFolder) -> Iterator[None]:
    """Have this process, rank 0 of the attempt that owns `folder`, guarded."""
    # It stays in the rank's process group: who suspends that, or a whole job, means the guard too.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, NOT_FOR_IT)
    environment = {key: value for key, value in os.environ.items() if key != "RANK"}  # nobody takes it for a rank
    try:
        with folder.log(0).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(folder.path), str(folder.owner)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=environment,
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield
    finally:
        with suppress(subprocess.TimeoutExpired):
            process.communicate(b"over", END_S)


def guard(folder: RunFolder, pid: int, pipe: int) -> None:
    """Watch the beats of rank 0, process `pid`, our parent, until it says so on `pipe` or is gone; end it where it is
    silent for too long: longer than it said itself that what it did might take, and `cluster.timeout_min` before its
    first word.
    """
    try:
        limit_s = 60 * float(folder.read_plan()["config"]["cluster"]["timeout_min"])
    except (UserError, KeyError):
        return  # the rank says what is wrong with its plan
    heard: tuple[float, Beat] | None = None
    silent_s, looked_at = 0.0, time.monotonic()
    while not _over(pid, pipe, every_s := min(LOOK_S, limit_s / 10)):
        # Where this process stood still as well (a suspended job, a machine asleep), nobody was silent.
        silent_s += min(time.monotonic() - looked_at, 2 * every_s)
        looked_at = time.monotonic()
        found = next((found for found in read_beats(folder) if found[1].rank == 0), None)
        if found != heard:
            heard, silent_s = found, 0.0
            limit_s = found[1].limit_s if found else limit_s
        elif silent_s > limit_s:
            _end(folder, pid, silent_s, found[1] if found else None)
            return


def _over(pid: int, pipe: int, timeout_s: float) -> bool:
    """Whether the rank has ended, waited for so long. Its loader processes may hold the pipe open a little longer."""
    return bool(select.select([pipe], [], [], timeout_s)[0]) or os.getppid() != pid


def _end(folder: RunFolder, pid: int, silent_s: float, beat: Beat | None) -> None:
    """Say why, then kill."""
    did = f"it was {beat.phase}, step {beat.step}" if beat else "it had only begun"
    reason = f"rank 0 has not been heard of for {silent_s:.0f} s; {did}: it was stopped, or hangs in native code"
    print(reason, file=sys.stderr, flush=True)
    with suppress(LostOwnership, OSError):  # another attempt's folder, or a full disk: it ends all the same
        write_down(folder, Failure.of_hang(0, reason, stack="", log=folder.last_log_lines(0)))
    if os.getppid() == pid:  # or it has ended meanwhile, and the number is another's
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    guard(RunFolder(Path(sys.argv[1])).owned_by(sys.argv[2]), os.getppid(), sys.stdin.fileno())
