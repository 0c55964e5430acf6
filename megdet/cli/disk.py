"""What run folders take on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from megdet.cli.runs import DEFAULT
from megdet.runs.folder import RunFolder
from megdet.runs.run_files import PLAN, REPLACED
from megdet.runs.sweep_folder import SWEEPS


def replaced_runs(runs: Path = Path(DEFAULT)) -> list[RunFolder]:
    """The folders of runs that were begun anew with sweep.on_existing=force, oldest first."""
    return [RunFolder(path.parent) for path in sorted((runs / REPLACED).glob(f"*/{PLAN}"))]


def sweeps_folder(runs: Path = Path(DEFAULT)) -> Path:
    return runs / SWEEPS


def bytes_in(folder: Path) -> int:
    """Of all files in a folder; what goes away meanwhile counts for nothing."""
    return sum(size for _, size in files_in(folder))


def files_in(folder: Path) -> Iterator[tuple[Path, int]]:
    """All files in a folder and in those below it, with their sizes."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            try:
                yield path, path.lstat().st_size
            except FileNotFoundError:
                continue


def size_text(size: int) -> str:
    """`830 B`, `12 kB`, `345 MB`, `1.2 GB`."""
    amount, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if amount >= 10 or unit == "B" else f"{amount:.1f} {unit}"
