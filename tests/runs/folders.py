"""Run folders as tests write them, owned by the test, and where they stand."""

from __future__ import annotations

from pathlib import Path

from megdet.launchers.jobs import stands_of
from megdet.runs.folder import RunFolder
from megdet.runs.status import Stand


def owned(path: Path) -> RunFolder:
    """The folder, claimed by this test."""
    return RunFolder(path).claim("test")


def stand_of(folder: RunFolder) -> Stand:
    """Where one run stands."""
    return stands_of([folder])[folder]
