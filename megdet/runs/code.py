"""The code that runs are made with: a copy of it is kept beside them, so that edits change nothing of what is queued.

There is one copy for each state of the code, `runs/.code/<hash>/megdet`, of a checkout with its uncommitted changes. An
installed release is not edited, and needs none.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from megdet.config.locations import CHECKOUT, PACKAGE
from megdet.errors import UserError
from megdet.planning.code_version import sha256_of_sources, source_files
from megdet.planning.plan import Plan
from megdet.runs.run_files import CANARIES, PLAN

CODE = ".code"
LOCK = ".lock"

_held: dict[Path, int] = {}
"""The open locks on copies that this process starts runs with."""


def code_to_run(runs_dir: str | Path) -> str:
    """The state of the code that runs of a folder are to be started with, by 12 digits; empty for an installed release.

    That is the one with which this process has started some already, so that a sweep is of one code, else that of now.
    """
    if CHECKOUT is None:
        return ""
    before = [place.name for place in _held if place == frozen_folder(runs_dir, place.name)]
    return before[-1] if before else sha256_of_sources(PACKAGE)[:12]


def frozen_code(plan: Plan) -> Path | None:
    """The folder with the package that the ranks of a plan import; None for an installed release."""
    return frozen_folder(plan.config.runs_dir, plan.code) if plan.code else None


def frozen_folder(runs_dir: str | Path, code: str) -> Path:
    """Where the copy of a state of the code is; canaries have that of the runs which they stand for."""
    runs = Path(runs_dir).resolve()
    return (runs.parent if runs.name == CANARIES else runs) / CODE / code


def freeze_code(plan: Plan) -> None:
    """Keep the code of a plan, if there is no copy of it yet; it stays at least as long as this process.

    Raises UserError where the code is another one by now.
    """
    place = frozen_code(plan)
    if place is None or place in _held:
        return
    if not place.exists():
        unfinished = place.with_name(f".{place.name}-{secrets.token_hex(4)}")
        try:
            for file in source_files(PACKAGE):
                copy = unfinished / PACKAGE.name / file.relative_to(PACKAGE)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
            if not sha256_of_sources(unfinished / PACKAGE.name).startswith(plan.code):
                raise UserError("the code of megdet was edited while its runs were planned; give the same line again")
            with suppress(OSError):  # another launcher was faster
                unfinished.rename(place)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    _held[place] = _locked(place, fcntl.LOCK_SH)


def forget_unused_code(runs_dir: Path) -> list[Path]:
    """Remove the copies that no run of a folder was made with, and no launcher starts runs with; their folders."""
    used = {_code_of(path) for path in runs_dir.glob(f"*/{PLAN}")}
    removed = []
    for place in sorted((runs_dir / CODE).glob("[!.]*")):
        if place.name not in used and _is_free(place):
            shutil.rmtree(place, ignore_errors=True)
            removed.append(place)
    return removed


def _code_of(plan: Path) -> str:
    try:
        return str(json.loads(plan.read_bytes()).get("code", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _is_free(place: Path) -> bool:
    try:
        os.close(_locked(place, fcntl.LOCK_EX | fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _locked(place: Path, how: int) -> int:
    lock = os.open(place / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, how)
    except OSError:
        os.close(lock)
        raise
    return lock
