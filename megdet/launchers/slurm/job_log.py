"""What srun and Slurm said around the ranks of one start of a job."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from pathlib import Path

from megdet.launchers.slurm.submission import Submission
from megdet.runs.folder import RunFolder
from megdet.runs.run_records import last_lines

LINES = 400
_ENDED = re.compile(r"srun: error: .*\btasks? (\d+)[^:]*: (?:Exited with exit code (\d+)|(\S.*))")
_SIGNALS = {signal.strsignal(number): int(number) for number in signal.valid_signals()}
"""By the system's words for them, which srun uses."""


def begins(attempt: str) -> str:
    """The line with which an attempt begins in its job's log, which all starts of a job share."""
    return f"megdet: attempt {attempt}"


def said_around(folder: RunFolder, attempt: str) -> list[str]:
    """The lines of the job's log since an attempt began; the last ones where it never did."""
    submission = Submission.read(folder)
    lines = list(last_lines(Path(submission.log) if submission else folder.launcher_log, LINES))
    if begins(attempt) in lines:
        lines = lines[len(lines) - lines[::-1].index(begins(attempt)) :]
    return lines


def first_to_end(lines: Sequence[str]) -> tuple[int | None, int | None]:
    """The rank that srun saw end first, and its exit code, 128 and the signal's number where a signal ended it.

    None where srun did not say.
    """
    for line in lines:
        if found := _ENDED.search(line):
            rank, code, words = found.groups()
            if code is None:
                number = _SIGNALS.get(words.removesuffix(" (core dumped)").strip())
                return int(rank), number and 128 + number
            return int(rank), int(code)
    return None, None
