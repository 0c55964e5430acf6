"""Where a person may be watching a rank."""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import TextIO

from megdet.errors import outliving_its_pipe
from megdet.runs.rank_environment import TERMINAL


def terminal() -> TextIO:
    """What the launcher has handed on for that, so that its copy of standard error does not come into the log a second
    time; else standard error itself."""
    number = os.environ.get(TERMINAL)
    return _opened(int(number)) if number else sys.stderr


@cache
def _opened(descriptor: int) -> TextIO:
    # Line by line, as standard error is.
    return outliving_its_pipe(open(descriptor, "w", buffering=1, errors="backslashreplace", closefd=False))
