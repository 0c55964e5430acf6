"""Where a run stands and how far it is, as numbers: what `megdet status` shows, and prints as JSON."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from megdet.errors import UserError
from megdet.planning.identity import plan_sha256_of
from megdet.runs.beats import read_beats
from megdet.runs.folder import RunFolder
from megdet.runs.journal import read_journal
from megdet.runs.status import Stand, Status
from megdet.runs.times import duration_text

QUIET_AFTER_S = 120.0
"""A run of which a rank makes no progress for this long may hang; `why` says so, and its watchdog will act."""


@dataclass(frozen=True)
class Standing:
    """A run at one moment; None where nothing is known yet."""

    run: str
    status: str
    why: str
    epoch: int | None = None
    """Epochs done, of `epochs`."""
    epochs: int | None = None
    step: int | None = None
    """Optimizer steps done."""
    mmAP: float | None = None
    """After the last epoch done, in percent."""
    train_s: float | None = None
    left_s: float | None = None
    """At the present speed; of a running run."""
    model: str | None = None
    data: str | None = None
    plan_sha256: str | None = None
    """As `sweep.dry_run=json` and tables with --provenance have it."""


def standing_of(folder: RunFolder, stand: Stand) -> Standing:
    """What is known of a run; damaged files are said in `why`, and leave numbers out."""
    try:
        return _standing(folder, stand)
    except (UserError, OSError) as error:
        return Standing(folder.name, stand.status, f"{stand.why}; {error}".removeprefix("; "))


def _standing(folder: RunFolder, stand: Stand) -> Standing:
    plan, state = folder.read_plan(), folder.state()
    try:
        plan_sha256 = plan_sha256_of(plan)
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder.plan} is damaged ({error}); move the run folder away") from None
    config, schedule = plan["config"], plan["schedule"]
    known = {
        "epochs": schedule["epochs"],
        "model": config["model"]["name"],
        "data": config["data"]["name"],
        "plan_sha256": plan_sha256,
    }
    if state is None:
        return Standing(folder.name, stand.status, stand.why, epoch=0, **known)
    done, why, left_s = _progress(folder, _stamp(folder.journal)), stand.why, None
    if stand.status == Status.RUNNING:
        if still := _stands_still(folder):
            why = f"{still} ({why})"
        if done.images_per_s:
            steps = schedule["steps_per_epoch"] * schedule["epochs"]
            left_s = (steps - done.step) * config["batch"] / done.images_per_s
    return Standing(
        folder.name,
        stand.status,
        why,
        epoch=done.epoch,
        step=done.step or state.step,
        mmAP=done.mmAP,
        train_s=state.train_s,
        left_s=left_s,
        **known,
    )


def _stands_still(folder: RunFolder) -> str:
    """Which rank has made no step for how long, and what it does; empty where all is well."""
    beats = read_beats(folder)
    if not beats:
        return ""
    seen_at, beat = min(beats, key=lambda found: min(found[0], found[1].progress_at))
    still_s = time.time() - min(seen_at, beat.progress_at)
    return f"no step for {duration_text(still_s)}: rank {beat.rank} {beat.phase}" if still_s >= QUIET_AFTER_S else ""


class _Progress(NamedTuple):
    """How far a run's journal has come."""

    epoch: int
    step: int
    mmAP: float | None
    images_per_s: float | None


@lru_cache(maxsize=4096)
def _progress(folder: RunFolder, stamp: tuple[int, int]) -> _Progress:
    """The progress in a journal; cached until its `stamp` changes."""
    lines = read_journal(folder)
    epochs = [line for line in lines if line["kind"] == "epoch"]
    speeds = [line.get("images_per_s") for line in lines[-50:] if line["kind"] == "step"]
    last: Mapping[str, Any] = epochs[-1] if epochs else {}
    return _Progress(
        epoch=last.get("epoch", 0),
        step=lines[-1]["step"] if lines else 0,
        mmAP=last.get("mmAP"),
        images_per_s=speeds[-1] if speeds else None,
    )


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
