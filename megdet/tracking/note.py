"""What the folder of a run or a sweep notes of its run in MLflow: where that is, and what it already has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from megdet.runs.files import replace_file
from megdet.runs.folder import MLFLOW_NOTE


def noted_in(folder: Path) -> dict[str, Any] | None:
    """The folder's note; None where there is none, or a damaged one, which is made anew."""
    with suppress(FileNotFoundError, ValueError):
        noted: dict[str, Any] = json.loads((folder / MLFLOW_NOTE).read_text())
        return noted
    return None


def note(folder: Path, noted: Mapping[str, Any]) -> None:
    """Replace the folder's note."""
    replace_file(folder / MLFLOW_NOTE, json.dumps(noted, indent=2) + "\n")
