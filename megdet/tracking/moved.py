"""Run folders that were moved or copied, with the MLflow database beside them: what they push goes to the one there."""

from __future__ import annotations

from pathlib import Path

from megdet.tracking.note import noted_in
from megdet.tracking.uri import sqlite_path, sqlite_uri

FOLDER = "folder"
"""Key of a folder's note: where it was when MLflow got it first."""


def uri_here(folder: Path, uri: str) -> str:
    """`uri`, as a plan has it, for a run's or sweep's folder where it lies now.

    An sqlite database that lay in a folder above the run's is looked for at the same place above the folder today.
    """
    noted, database = noted_in(folder), sqlite_path(uri)
    if noted is None or FOLDER not in noted or database is None:
        return uri
    before, now = Path(noted[FOLDER]), folder.resolve()
    if before == now or not before.is_relative_to(database.parent):
        return uri
    depth = len(before.relative_to(database.parent).parts)
    return sqlite_uri(now.parents[depth - 1] / database.name)
