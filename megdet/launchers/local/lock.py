"""The lock of a run folder: one launcher at a time, released when its holder ends, however it ends."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from megdet.runs.folder import RunFolder


@dataclass(frozen=True)
class Holder:
    """The launcher that holds a run folder's lock."""

    host: str
    pid: int

    @property
    def is_here(self) -> bool:
        return self.host == socket.gethostname()


@contextmanager
def locked(folder: RunFolder, *, patience_s: float) -> Iterator[int]:
    """The folder's lock; ranks inherit it, so that it is held until the last of them is gone.

    Raises BlockingIOError where another process holds it for longer than `patience_s`.
    """
    lock = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o666)
    until = time.monotonic() + patience_s
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise
            time.sleep(0.02)
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode(), 0)
        yield lock
        os.ftruncate(lock, 0)
    finally:
        os.close(lock)


def is_locked(folder: RunFolder) -> bool:
    """Whether a launcher or a rank of one works in a run folder, which may be read-only."""
    try:
        lock = os.open(folder.lock, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def holder_of(folder: RunFolder) -> Holder | None:
    """Who holds a folder's lock; None if the lock does not say."""
    try:
        return Holder(**json.loads(folder.lock.read_text()))
    except (OSError, ValueError, TypeError):
        return None
