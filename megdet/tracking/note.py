"""What the folder of a run or a sweep notes of its run in MLflow: where that is, and what it already has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from megdet.runs.files import replace_file
from megdet.runs.run_files import MLFLOW_NOTE


def noted_in(folder: Path) -> dict[str, Any] | None:
    """The folder's note; None where there is none, or a damaged one, which is made anew."""
    with suppress(FileNotFoundError, ValueError, RecursionError):
        noted = json.loads((folder / MLFLOW_NOTE).read_bytes())
        if isinstance(noted, dict) and any(kinds == {key: type(noted.get(key)) for key in kinds} for kinds in _KINDS):
            return noted
    return None


_OF_BOTH: dict[str, type] = {"run_id": str, "uri": str, "experiment_id": str, "artifacts": dict}
_KINDS = (
    _OF_BOTH | {"epoch": int, "step": int, "final": bool},
    _OF_BOTH | {"experiment": str, "digest": str},
)
"""What the note of a run has, and that of a sweep."""


def note(folder: Path, noted: Mapping[str, Any]) -> None:
    """Replace the folder's note."""
    replace_file(folder / MLFLOW_NOTE, json.dumps(noted, indent=2) + "\n")
