"""Watches runs that were handed over: a live table on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from megdet.errors import ExitCode
from megdet.launchers.run_status import RunStatus, run_status, states_of_jobs
from megdet.runs.folder import RunFolder
from megdet.runs.status import Status

if TYPE_CHECKING:
    from rich.table import Table

POLL_S = 3.0
MISSING_POLLS = 3
"""A job that Slurm does not know this often in a row is gone; right after sbatch it may not know it yet."""

STYLES = {
    Status.FINISHED: "green", Status.RUNNING: "cyan", Status.DIVERGED: "magenta", Status.FAILED: "red",
    Status.LOST: "red",
}  # fmt: skip


def watch(folders: Sequence[RunFolder], *, mirror: Callable[[int], None], poll_s: float = POLL_S) -> ExitCode:
    """Wait until none of the runs is under way; 0, or 1 where a run did not come to a result.

    `mirror(number)` is called on each run that ended without one. Ctrl-C stops watching, not the runs.
    """
    try:
        statuses = _watch_live(folders, poll_s) if sys.stdout.isatty() else _watch_lines(folders, poll_s)
    except KeyboardInterrupt:
        print("\ndetached: the jobs go on; megdet status, megdet wait, megdet cancel", file=sys.stderr, flush=True)
        return ExitCode.OK
    counts = Counter(status.status for status in statuses)
    print(", ".join(f"{count} {status}" for status, count in counts.items()), flush=True)
    failed = [number for number, status in enumerate(statuses) if not status.status.is_result]
    for number in failed:
        print(
            f"{folders[number].name}: {statuses[number].status} ({statuses[number].why})", file=sys.stderr, flush=True
        )
        mirror(number)
    return ExitCode.RUN_FAILED if failed else ExitCode.OK


class _Poll:
    """The runs' statuses at each look; a job that is not found once is looked for again."""

    def __init__(self, folders: Sequence[RunFolder]) -> None:
        self._folders = folders
        self._missing: Counter[RunFolder] = Counter()

    def __call__(self) -> tuple[list[RunStatus], bool]:
        """The statuses, and whether all runs have ended."""
        states = states_of_jobs(self._folders)
        statuses = [run_status(folder, states) for folder in self._folders]
        live = False
        for folder, status in zip(self._folders, statuses, strict=True):
            self._missing[folder] = self._missing[folder] + 1 if status.status == Status.LOST else 0
            live |= status.status.is_live or 0 < self._missing[folder] < MISSING_POLLS
        return statuses, not live


def _watch_live(folders: Sequence[RunFolder], poll_s: float) -> list[RunStatus]:
    from rich.live import Live

    poll = _Poll(folders)
    statuses, over = poll()
    with Live(_table(folders, statuses), auto_refresh=False) as live:
        while not over:
            time.sleep(poll_s)
            statuses, over = poll()
            live.update(_table(folders, statuses), refresh=True)
    return statuses


def _watch_lines(folders: Sequence[RunFolder], poll_s: float) -> list[RunStatus]:
    poll = _Poll(folders)
    statuses, over = poll()
    said: list[str] = [""] * len(folders)
    while True:
        for number, (folder, status) in enumerate(zip(folders, statuses, strict=True)):
            if status.status != said[number]:
                said[number] = status.status
                print(f"{folder.name}: {status.status}" + (f" ({status.why})" if status.why else ""), flush=True)
        if over:
            return statuses
        time.sleep(poll_s)
        statuses, over = poll()


def _table(folders: Sequence[RunFolder], statuses: Sequence[RunStatus]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("run", "status", "attempt", "step", "hours", ""):
        table.add_column(
            name, justify="right" if name in ("attempt", "step", "hours") else "left", no_wrap=name == "run"
        )
    for folder, status in zip(folders, statuses, strict=True):
        state = folder.state()
        numbers = (str(state.attempts), str(state.step), f"{state.train_s / 3600:.2f}") if state else ("", "", "")
        table.add_row(folder.name, Text(status.status, STYLES.get(status.status, "")), *numbers, status.why)
    table.caption = "Ctrl-C stops watching; the jobs go on"
    return table
