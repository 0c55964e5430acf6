"""How programs end: the one exception for what a user can write wrong, and the exit codes."""

from __future__ import annotations

from enum import IntEnum


class UserError(ValueError):
    """A request that cannot be met; the text names the settings, the numbers and a way out.

    Entry points print the text alone (no traceback) and exit with `ExitCode.USER_ERROR`.
    """


class ExitCode(IntEnum):
    """Of `launch.py`, of `megdet`, and of a rank (`python -m megdet.run`)."""

    OK = 0
    """All is well. Of a rank: its run finished or diverged."""
    RUN_FAILED = 1
    """A run failed."""
    USER_ERROR = 2
    """A mistake in what was asked."""
    INTERRUPTED = 3
    """Asked to stop; the same command goes on from the checkpoint."""
