"""Fabricated runs that something is at work in."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megdet.runs.run_files import LOCK


@contextmanager
def being_run(folder: Path) -> Iterator[None]:
    """Hold the run folder's lock, as a launcher does: without it a `running` run counts as interrupted."""
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
