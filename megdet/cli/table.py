"""The table of `megdet status`: state, progress and result of each run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

from megdet.errors import UserError, printable
from megdet.launchers.watch import STYLES
from megdet.runs.beats import read_beats
from megdet.runs.folder import RunFolder
from megdet.runs.journal import read_journal
from megdet.runs.status import Stand, Status

QUIET_AFTER_S = 120.0
"""A run of which a rank makes no progress for this long may hang; the table says so, and its watchdog will act."""

COLUMNS = ("run", "status", "epoch", "step", "mmAP", "hours", "left", "why")
"""`hours` of training so far, `left` at the present speed."""


class Progress(NamedTuple):
    """How far a run's journal has come."""

    epoch: int
    step: int
    mmAP: float | None
    images_per_s: float | None
    time: float | None
    """Unix seconds of the last line."""


def table_of(stands: Mapping[RunFolder, Stand], *, live_first: bool = False) -> Group:
    """The table of runs, under a line that counts them by status.

    `live_first`: runs that are under way come first, for a screen that may not hold them all.
    """
    table = Table()
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("run", "status", "why") else "right")
    rows = list(stands.items())
    if live_first:
        rows.sort(key=lambda row: not row[1].status.is_live)
    for folder, stand in rows:
        try:
            cells = _cells(folder, stand)
        except (UserError, OSError) as error:
            cells = (folder.name, stand.status, "", "", "", "", "", f"{stand.why}; {error}".removeprefix("; "))
        styles = ("", STYLES.get(stand.status, "")) + len(cells[2:]) * ("",)
        table.add_row(*(Text(printable(cell), style) for cell, style in zip(cells, styles, strict=True)))
    counts = Counter(stand.status for stand in stands.values())
    return Group(Text(", ".join(f"{count} {status}" for status, count in counts.most_common())), table)


def _cells(folder: RunFolder, stand: Stand) -> tuple[str, ...]:
    plan, state = folder.read_plan(), folder.state()
    epochs = plan["schedule"]["epochs"]
    if state is None:
        return folder.name, stand.status, f"0/{epochs}", "", "", "", "", stand.why
    done = _progress(folder, _stamp(folder.journal))
    why = stand.why
    if stand.status == Status.RUNNING and (still := _stands_still(folder)):
        why = f"{still} ({why})"
    left = ""
    if stand.status == Status.RUNNING and done.images_per_s:
        steps = plan["schedule"]["steps_per_epoch"] * epochs
        left = f"{(steps - done.step) * plan['config']['batch'] / done.images_per_s / 3600:.3g}"
    return (
        folder.name,
        stand.status,
        f"{done.epoch}/{epochs}",
        str(done.step or state.step),
        "" if done.mmAP is None else f"{done.mmAP:.1f}",
        f"{state.train_s / 3600:.3g}",
        left,
        why,
    )


def _stands_still(folder: RunFolder) -> str:
    """Which rank has made no step for how long, and what it does; empty where all is well."""
    beats = read_beats(folder)
    if not beats:
        return ""
    seen_at, beat = min(beats, key=lambda found: min(found[0], found[1].progress_at))
    still_s = time.time() - min(seen_at, beat.progress_at)
    if still_s < QUIET_AFTER_S:
        return ""
    minutes = f"{still_s / 60:.0f} min" if still_s < 2 * 3600 else f"{still_s / 3600:.1f} h"
    return f"no step for {minutes}: rank {beat.rank} {beat.phase}"


@lru_cache(maxsize=4096)
def _progress(folder: RunFolder, stamp: tuple[int, int]) -> Progress:
    """The progress in a journal; cached until its `stamp` changes."""
    lines = read_journal(folder)
    epochs = [line for line in lines if line["kind"] == "epoch"]
    speeds = [line.get("images_per_s") for line in lines[-50:] if line["kind"] == "step"]
    last: Mapping[str, Any] = epochs[-1] if epochs else {}
    return Progress(
        epoch=last.get("epoch", 0),
        step=lines[-1]["step"] if lines else 0,
        mmAP=last.get("mmAP"),
        images_per_s=speeds[-1] if speeds else None,
        time=lines[-1]["time"] if lines else None,
    )


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
