"""Watches runs that were handed over: a live table on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from megdet.errors import ExitCode
from megdet.launchers.jobs import Jobs
from megdet.runs.folder import RunFolder
from megdet.runs.status import Stand, Status
from megdet.runs.times import duration_text

if TYPE_CHECKING:
    from rich.table import Table

POLL_S = 3.0
MISSING_POLLS = 3
"""A job that its queue does not know this often in a row is lost; right after submission it may not know it yet. So is
a state.json that cannot be read this often: a network file system may lose sight of it for a moment."""

STYLES = {
    Status.FINISHED: "green", Status.RUNNING: "cyan", Status.QUEUED: "blue", Status.REQUEUED: "blue",
    Status.DIVERGED: "magenta", Status.FAILED: "red", Status.LOST: "red", Status.INTERRUPTED: "yellow",
    Status.CANCELLED: "yellow",
}  # fmt: skip
"""How statuses look on a terminal."""


def watch(
    folders: Sequence[RunFolder],
    *,
    mirror: Callable[[int], None],
    at_each_look: Callable[[Mapping[RunFolder, Stand]], None] = lambda stands: None,
    poll_s: float = POLL_S,
) -> ExitCode:
    """Wait until none of the runs is under way; 0, or 1 where a run did not come to a result.

    `mirror(number)` is called on each run that ended without one, `at_each_look` with what was seen. Ctrl-C stops
    watching, not the runs.
    """
    poll = _Poll(folders, at_each_look)
    try:
        stands = _watch_live(folders, poll, poll_s) if sys.stdout.isatty() else _watch_lines(folders, poll, poll_s)
    except KeyboardInterrupt:
        print("\ndetached: the jobs go on; megdet status, megdet wait, megdet cancel", file=sys.stderr, flush=True)
        return ExitCode.OK
    counts = Counter(stand.status for stand in stands)
    print(", ".join(f"{count} {status}" for status, count in counts.items()), flush=True)
    failed = [number for number, stand in enumerate(stands) if not stand.status.is_result]
    for number in failed:
        print(f"{_label(folders[number])}: {stands[number].status} ({stands[number].why})", file=sys.stderr, flush=True)
        mirror(number)
    return ExitCode.RUN_FAILED if failed else ExitCode.OK


def _label(folder: RunFolder) -> str:
    return f"canary {folder.name}" if folder.is_canary else folder.name


class _Poll:
    """Where the runs stand at each look; a job that is not found once is looked for again."""

    def __init__(self, folders: Sequence[RunFolder], at_each_look: Callable[[Mapping[RunFolder, Stand]], None]) -> None:
        self._folders, self._at_each_look = folders, at_each_look
        self._jobs = Jobs()
        self._missing: Counter[RunFolder] = Counter()

    def __call__(self) -> tuple[list[Stand], bool]:
        """Where each stands, and whether all runs have ended."""
        stands = self._jobs.stands_of(self._folders)
        self._at_each_look(stands)
        live = False
        for folder, stand in stands.items():
            unseen = stand.status == Status.LOST or bool(folder.damage())
            self._missing[folder] = self._missing[folder] + 1 if unseen else 0
            live |= stand.status.is_live or 0 < self._missing[folder] < MISSING_POLLS
        return [stands[folder] for folder in self._folders], not live


def _watch_live(folders: Sequence[RunFolder], poll: _Poll, poll_s: float) -> list[Stand]:
    from rich.live import Live

    stands, over = poll()
    with Live(_table(folders, stands), auto_refresh=False) as live:
        while not over:
            time.sleep(poll_s)
            stands, over = poll()
            live.update(_table(folders, stands), refresh=True)
    return stands


def _watch_lines(folders: Sequence[RunFolder], poll: _Poll, poll_s: float) -> list[Stand]:
    stands, over = poll()
    said: list[str] = [""] * len(folders)
    while True:
        for number, (folder, stand) in enumerate(zip(folders, stands, strict=True)):
            line = f"{_label(folder)}: {stand.status}" + (f" ({stand.why})" if stand.why else "")
            if line != said[number]:  # also where it waits for another reason now: it may be one that never goes away
                said[number] = line
                print(line, flush=True)
        if over:
            return stands
        time.sleep(poll_s)
        stands, over = poll()


def _table(folders: Sequence[RunFolder], stands: Sequence[Stand]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("run", "status", "attempt", "step", "trained", ""):
        table.add_column(
            name, justify="right" if name in ("attempt", "step", "trained") else "left", no_wrap=name == "run"
        )
    for folder, stand in zip(folders, stands, strict=True):
        state = folder.state()
        numbers = (str(state.attempts), str(state.step), duration_text(state.train_s)) if state else ("", "", "")
        table.add_row(_label(folder), Text(stand.status, STYLES.get(stand.status, "")), *numbers, stand.why)
    table.caption = "Ctrl-C stops watching; the jobs go on"
    return table
