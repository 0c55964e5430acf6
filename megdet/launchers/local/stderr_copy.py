"""Rank 0's standard error on this machine: to ours, where people watch, and into the rank's log.

Its own lines go to both without us. What comes here is what nobody logs: the traceback of a rank that dies before its
log begins, the last words of native code.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from megdet.runs.rank_environment import TERMINAL

END_S = 5.0
"""For what the rank has started, and outlives it, to let go of the pipe."""


class StderrCopy:
    """The other end of a rank's standard error. It has to be closed once the rank has ended."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._read_end, self.write_end = os.pipe()
        """The rank's standard error; to be closed here once the rank has it."""
        self.ours = _own_stderr()
        """What the rank gets beside it."""
        self._thread = threading.Thread(target=self._copy, name="stderr", daemon=True)
        self._thread.start()

    @property
    def environment(self) -> Mapping[str, str]:
        """What tells the rank."""
        return {TERMINAL: str(self.ours)}

    def started(self) -> None:
        """The rank has its ends."""
        os.close(self.write_end)

    def close(self) -> None:
        """Wait for the last words."""
        self._thread.join(END_S)

    def _copy(self) -> None:
        with self._log.open("ab", buffering=0) as log:
            while content := os.read(self._read_end, 1 << 16):
                for write in (log.write, lambda content: os.write(self.ours, content)):
                    with suppress(OSError):  # a full disk, a terminal that is gone: the other one still gets it
                        write(content)
        os.close(self._read_end)
        os.close(self.ours)


def _own_stderr() -> int:
    """A descriptor of our standard error; who was started without one writes to nobody."""
    try:
        return os.dup(2)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)
