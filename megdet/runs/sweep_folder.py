"""The record of a sweep: `<runs_dir>/.sweeps/<sweep_id>/sweep.json`, and beside it whatever files are made of it.

A sweep is what was asked: the same runs asked for again are the same sweep. Runs know nothing of it, and one run
may be part of many.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from megdet.errors import UserError
from megdet.runs.checked import checked
from megdet.runs.files import json_text, replace_file
from megdet.runs.folder import RunFolder

SWEEPS = ".sweeps"
SWEEP = "sweep.json"


@dataclass(frozen=True)
class Sweep:
    """The runs of one command with -m."""

    sweep_id: str
    """8 hex digits over the ids of its runs."""
    name: str
    """`table3`, or the swept overrides as they were written."""
    command: str
    launched: str
    """ISO 8601 with time zone, when it was first asked for."""
    run_ids: tuple[str, ...]
    """In the order asked for."""
    uri: str | None
    """Where MLflow keeps its runs; None: nowhere."""
    experiment: str
    settings: Mapping[str, str]
    """Of each headline setting the values that occur in its runs, as `16, 64, 256`."""

    @classmethod
    def read(cls, folder: Path) -> Sweep:
        """The sweep of a sweep's folder. Raises UserError where its file is damaged."""
        return _read(folder / SWEEP, (folder / SWEEP).stat().st_mtime_ns)


@lru_cache(maxsize=1024)  # each push of each run asks
def _read(path: Path, mtime_ns: int) -> Sweep:
    try:
        return checked(Sweep, json.loads(path.read_bytes()))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); remove it and give the sweep's command again") from None


def record_sweep(
    runs_dir: Path,
    *,
    name: str,
    command: str,
    run_ids: Sequence[str],
    uri: str | None,
    experiment: str,
    settings: Mapping[str, str],
) -> Path:
    """Record a sweep; returns its folder. A known sweep keeps its name and first time."""
    digest = hashlib.sha256("\n".join(sorted(run_ids)).encode()).hexdigest()[:8]
    folder = runs_dir / SWEEPS / digest
    launched = datetime.now(UTC).isoformat(timespec="seconds")
    if (folder / SWEEP).exists():
        before = Sweep.read(folder)
        name, command, launched, run_ids = before.name, before.command, before.launched, before.run_ids
    sweep = Sweep(digest, name, command, launched, tuple(run_ids), uri, experiment, dict(settings))
    folder.mkdir(parents=True, exist_ok=True)
    text = json_text(asdict(sweep))
    if not (folder / SWEEP).exists() or (folder / SWEEP).read_text() != text:
        replace_file(folder / SWEEP, text)
    return folder


def sweep_folders(runs_dir: Path) -> list[Path]:
    """The folders of the sweeps in a runs folder, oldest first; damaged ones are left out, with a line on stderr."""
    launched: dict[Path, str] = {}
    for path in (runs_dir / SWEEPS).glob(f"*/{SWEEP}"):
        try:
            launched[path.parent] = Sweep.read(path.parent).launched
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)
    return sorted(launched, key=lambda folder: (launched[folder], folder.name))


def sweeps_of(run_folder: RunFolder) -> list[Path]:
    """The folders of the sweeps that a run belongs to, oldest first."""
    return [folder for folder in sweep_folders(run_folder.path.parent) if run_folder.name in Sweep.read(folder).run_ids]
