"""How the ranks of an attempt find each other: rank 0 chooses a place and writes it where all of them look."""

from __future__ import annotations

import os
import socket
import sys
import time
import zlib
from dataclasses import asdict, dataclass
from typing import Any

from megdet.launchers.rank import HERE
from megdet.runs.folder import RunFolder

TIMEOUT_S = 300.0
PORTS = range(20_000, 32_000)
"""Of ranks on several nodes: few, so that a firewall between them can let them through."""


@dataclass(frozen=True)
class Meeting:
    """Where the ranks of one attempt meet, and what the attempt found."""

    attempt: str
    address: str
    port: int
    attempts_before: int
    """At the run; a state.json with more of them is this attempt's."""


def meet_here(folder: RunFolder, *, nodes: int) -> tuple[Meeting, socket.socket]:
    """Rank 0 listens, and tells the others where; ranks of one node on the loopback. The folder is the attempt's own.

    The socket stays open until torch takes it over: nobody can take the port in between.
    """
    before, attempt = folder.state(), str(folder.owner)
    address, listener = (HERE, _listener(HERE, 0)) if nodes == 1 else (_own_address(), _listener_on_free_port(attempt))
    meeting = Meeting(attempt, address, listener.getsockname()[1], before.attempts if before else 0)
    folder.write_meeting(asdict(meeting))
    return meeting, listener


def meet_there(folder: RunFolder, attempt: str, *, timeout_s: float = TIMEOUT_S) -> Meeting:
    """What rank 0 of this very attempt wrote; an earlier attempt's place is not taken for it. Ends the program where
    it does not come."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        meeting = meeting_of(folder, attempt)
        if meeting:
            return meeting
        time.sleep(0.2)
    sys.exit(f"{folder.meeting}: rank 0 did not say where it is; is the folder on a file system that all nodes share?")


def meeting_of(folder: RunFolder, attempt: str) -> Meeting | None:
    """None where the ranks of that attempt have not met (yet)."""
    # Listing the folder makes a network file system look again.
    if folder.meeting.name not in os.listdir(folder.path):
        return None
    values: dict[str, Any] | None = folder.read_meeting()
    return Meeting(**values) if values and values["attempt"] == attempt else None


def _own_address() -> str:
    """The name of this node that the others can resolve."""
    for name in (os.environ.get("SLURMD_NODENAME"), socket.gethostname()):
        try:
            if name and socket.getaddrinfo(name, None):
                return name
        except OSError:
            continue
    return HERE


def _listener_on_free_port(attempt: str) -> socket.socket:
    """Different attempts start looking in different places, so that jobs that share a host do not meet."""
    first = zlib.crc32(attempt.encode())
    for step in range(len(PORTS)):
        try:
            return _listener("", PORTS[(first + step) % len(PORTS)])
        except OSError:
            continue
    raise RuntimeError(f"no free port from {PORTS.start} to {PORTS.stop} on {socket.gethostname()}")


def _listener(address: str, port: int) -> socket.socket:
    """A socket that listens there, for this process and the program that it becomes. Raises OSError."""
    listener = socket.socket()
    try:
        listener.bind((address, port))
        listener.listen()
        listener.set_inheritable(True)
    except OSError:
        listener.close()
        raise
    return listener
