"""A run folder that goes away: its run in MLflow is deleted too."""

from __future__ import annotations

from pathlib import Path

from megdet.tracking.client import client_of, warn
from megdet.tracking.note import noted_in


def forget(folder: Path) -> bool:
    """Delete the MLflow run that the folder notes, if there is one; False, with a warning, where that failed.

    MLflow keeps a deleted run, out of sight, until `mlflow gc`.
    """
    noted = noted_in(folder)
    if noted is None or "run_id" not in noted:
        return True
    from mlflow.exceptions import MlflowException

    try:
        client = client_of(noted["uri"])
        if client.get_run(noted["run_id"]).info.lifecycle_stage == "active":
            client.delete_run(noted["run_id"])
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return True
        warn(noted["uri"], error)
        return False
    except Exception as error:  # whatever the server or the network does
        warn(noted["uri"], error)
        return False
    return True
