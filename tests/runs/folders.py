"""Run folders as tests write them: owned by the test."""

from __future__ import annotations

from pathlib import Path

from megdet.runs.folder import RunFolder


def owned(path: Path) -> RunFolder:
    """The folder, claimed by this test."""
    return RunFolder(path).claim("test")
