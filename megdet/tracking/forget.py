"""A run folder that goes away: its run in MLflow is deleted too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megdet.tracking.client import client_of, warn
from megdet.tracking.moved import FOLDER, uri_here
from megdet.tracking.note import noted_in
from megdet.tracking.uri import sqlite_path


def forget(folder: Path) -> bool:
    """Delete the MLflow run that the folder notes, if there is one; False, with a warning, where that failed.

    MLflow keeps a deleted run, out of sight, until `mlflow gc`. The run of a folder that this one is a copy of stays:
    where the database was copied too, it is deleted in the copy.
    """
    noted = noted_in(folder)
    if noted is None or "run_id" not in noted:
        return True
    uri = _database_of(folder, noted)
    if uri is None:
        return True
    from mlflow.exceptions import MlflowException

    try:
        client = client_of(uri)
        if client.get_run(noted["run_id"]).info.lifecycle_stage == "active":
            client.delete_run(noted["run_id"])
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return True
        warn(uri, error)
        return False
    except Exception as error:  # whatever the server or the network does
        warn(uri, error)
        return False
    return True


def _database_of(folder: Path, noted: Mapping[str, Any]) -> str | None:
    """Where MLflow has the run of a folder; None where the run there is that of another folder."""
    uri: str = noted["uri"]
    first = noted.get(FOLDER)
    if first is None or Path(first) == folder.resolve():
        return uri
    here = uri_here(folder, uri)
    beside = sqlite_path(here)
    if here != uri and beside is not None and beside.exists():
        return here
    original = noted_in(Path(first))
    return None if original is not None and original["run_id"] == noted["run_id"] else uri
