"""Programs that stand in for a rank: they have its place, write as it does, and train nothing."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable
from pathlib import Path

PRELUDE = """
import os, signal, subprocess, sys, time
from pathlib import Path
from megdet.runs.failure import Failure
from megdet.runs.rank_environment import ATTEMPT
from megdet.runs.folder import RunFolder
from megdet.runs.state import RunState
from megdet.runs.status import Status
folder, rank = Path(sys.argv[1]).parent, int(os.environ["RANK"])
run = RunFolder(folder).owned_by(os.environ[ATTEMPT])
signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGUSR2))
(folder / f"pid{rank}").write_text(str(os.getpid()))

def state(name, **values):
    before = run.state()
    attempts = before.attempts + 1 if before else 1
    run.write_state(RunState(Status(name), attempts=attempts, started="2020-01-01T00:00:00+00:00", **values))

def again(name, **values):
    from dataclasses import replace
    run.write_state(replace(run.state(), status=Status(name), **values))

def wait_for(name):
    while not (folder / name).exists():
        time.sleep(0.01)

def on_sigterm(exit_code, then=lambda: None):
    def stop(number, frame):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: nothing below may be interrupted
        then()
        (folder / f"stopped{rank}").touch()
        os._exit(exit_code)
    signal.signal(signal.SIGTERM, stop)
    (folder / f"ready{rank}").touch()
"""


def write_program(file: Path, body: str) -> tuple[str, ...]:
    """What a rank runs, from the body of its program: Python's arguments before the plan."""
    file.write_text(PRELUDE + textwrap.dedent(body))
    return (str(file),)


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def wait_until(condition: Callable[[], bool], what: str, *, timeout_s: float = 30.0) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, f"waited in vain: {what}"
        time.sleep(0.02)
